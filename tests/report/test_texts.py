"""Texts of the report: every language says the same things, and can say all that is found."""

import re
from string import Formatter

import pytest

from wdsearch.report.texts import LANGUAGES, LanguageError, Texts
from wdsearch.report.texts.en import TEXTS as ENGLISH


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_keys_with_the_same_placeholders(language: str) -> None:
    table = LANGUAGES[language]
    assert table.keys() == ENGLISH.keys()
    for key, text in table.items():
        assert placeholders(text) == placeholders(ENGLISH[key]), key
        assert text.strip(), key
        assert text.count("`") % 2 == 0, key
        assert text.count("**") % 2 == 0, key
        assert re.findall(r"`[^`]*`", text) == re.findall(r"`[^`]*`", ENGLISH[key]) or "explain" in text, key


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_claim_has_a_sentence_for_each_verdict_and_reason(language: str) -> None:
    words = Texts(language)
    keys = ["complexity", "bell", "zeros", "collinearity", "gap", "optimum", "updates", "gradients", "dropout"]
    for key in keys:
        assert words(f"claim.{key}")
        for verdict in ("supported", "contradicted", "no_effect", "undetermined"):
            assert words(f"claim.{key}.{verdict}") != words(f"claim.{key}")
            assert words(f"verdict.{verdict}")
    for unit in ("share", "weights", "runs", "correlation", "loss", "log"):
        assert "1" in words(f"unit.{unit}", value=1)
    reasons = "opposite none plateau mixed unclear inert diverged edge seeds halves equilibrium not_measured no_dropout"
    assert all(words(f"reason.{reason}", smallest="1 %") for reason in reasons.split())


def test_chinese_is_chinese() -> None:
    named = [key for key, text in LANGUAGES["zh"].items() if not re.search("[一-鿿]", text.format_map(Blank()))]
    # names of keys and numbers alone
    assert set(named) <= {
        "list.join", "answer.setting", "series.dropout", "mark.one_se", "curve.strength", "unit.share", "answer.rate",
        "metric.val_r2", "title.claim", "series.on", "unit.log", "range",
    }  # fmt: skip


class Blank(dict):  # type: ignore[type-arg]
    def __missing__(self, key: str) -> str:
        return ""


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    with pytest.raises(LanguageError, match="there is no language 'fr'; choose one of: en, zh"):
        Texts("fr")
