"""Assembles the report's HTML page from words, tables and figures; reads and writes nothing."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from wdsearch.analysis.advice import Flag
from wdsearch.analysis.importance import best_share
from wdsearch.analysis.outcomes import Claim, Explanation
from wdsearch.analysis.trend import Trend
from wdsearch.report.figures import Figure
from wdsearch.report.sentences import answer, comparison, effect, finding, flag_text, reason, value_text
from wdsearch.report.sweep_charts import verdict_sentences
from wdsearch.report.texts import Texts
from wdsearch.report.to_html import as_html
from wdsearch.storage.results import StudyResult
from wdsearch.study.file import as_yaml


@dataclass(frozen=True)
class Content:
    """Content of a report: a study, its explanation, advice, charts by name and by claim, and versions.

    `trend` is None unless the study is one of several sweeps.
    """

    result: StudyResult
    explanation: Explanation | None
    flags: tuple[Flag, ...]
    charts: Mapping[str, Figure]
    claims: Mapping[str, Figure]
    versions: Mapping[str, str]
    trend: Trend | None = None


def body(content: Content, words: Texts) -> str:
    """The page's sections, in the order in which they are read."""
    parts = {
        "answer": _answer(content, words),
        "comparison": _comparison(content.result, words),
        "gap": _gap(content, words),
        "path": _path(content, words),
        "importance": _importance(content, words),
        "claims": _claims(content, words),
        **({"sweeps": _sweeps(content.trend, content, words)} if content.trend else {}),
        "flags": _flags(content, words),
        "reproduce": _reproduce(content, words),
    }
    return "\n".join(
        f'<section id="{name}"><h2>{escape(words(f"section.{name}"))}</h2>\n{text}</section>'
        for name, text in parts.items()
    )


def inline(text: str) -> str:
    """HTML of a text in which `code` and **strong** words are marked.

    >>> inline("**λ** < 1: see `wdsearch explain`")
    '<strong>λ</strong> &lt; 1: see <code>wdsearch explain</code>'
    """
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked)


def _paragraphs(texts: Iterable[str], kind: str = "") -> str:
    start = f'<p class="{kind}">' if kind else "<p>"
    return "\n".join(f"{start}{inline(text)}</p>" for text in texts)


def _figure(figure: Figure | None, missing: str, *captions: str) -> str:
    """A figure with its caption, or the text for a missing one."""
    if figure is None:
        return _paragraphs([missing], "note")
    text = " ".join(inline(caption) for caption in captions)
    return f"<figure><h3>{escape(figure.title)}</h3>{as_html(figure)}<figcaption>{text}</figcaption></figure>\n"


# -- the answer ----------------------------------------------------------------------------------------------------


def _answer(content: Content, words: Texts) -> str:
    sentences = answer(content.result, content.explanation, words)
    return f'<div class="answer">{_paragraphs(sentences)}</div>'


# -- tables --------------------------------------------------------------------------------------------------------


def _comparison(result: StudyResult, words: Texts) -> str:
    number = result.best.number if result.best else "–"
    heads = ["", words("table.best", number=number), words("table.baseline"), words("table.difference")]
    lines = [f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"]
    for name, key, best, baseline, difference in comparison(result, words):
        code = f"<code>{escape(key).replace('_', '_<wbr>')}</code>" if key else ""
        label = f'{escape(name)} <span class="name">{code}</span>' if name else code
        cells = f'<td class="best">{escape(best)}</td><td>{escape(baseline)}</td><td>{escape(difference)}</td>'
        lines.append(f"<tr><td>{label}</td>{cells}</tr>")
    table = f'<div class="wide"><table>{"".join(lines)}</table></div>'
    return table + _paragraphs([words("table.caption")], "note")


# -- figures -------------------------------------------------------------------------------------------------------


def _gap(content: Content, words: Texts) -> str:
    study = content.result.study
    chosen = words("caption.one_se") if content.explanation else words("caption.no_one_se", study=study)
    return _figure(content.charts.get("gap"), words("missing.gap"), words("caption.gap"), chosen)


def _path(content: Content, words: Texts) -> str:
    explanation = content.explanation
    caption = words("caption.path_of_trials", study=content.result.study)
    if explanation:
        caption = words("caption.path", key=explanation.decay, seeds=explanation.seeds)
    return _figure(content.charts.get("path"), words("missing.path"), caption)


def _importance(content: Content, words: Texts) -> str:
    complete, explanation = content.result.counts["complete"], content.explanation
    share = f"{100 * best_share(complete):.0f}" if complete else ""
    importance = _figure(
        content.charts.get("importance"),
        words("missing.importance"),
        words("caption.importance", share=share, count=complete),
    )
    figure = content.charts.get("interaction")
    grid = explanation is not None and figure is not None and figure.panels[0].heat is not None
    caption = (
        words("caption.grid", seeds=explanation.seeds)
        if explanation and grid
        else words("caption.interaction", study=content.result.study)
    )
    return importance + _figure(figure, words("missing.interaction"), caption)


# -- claims --------------------------------------------------------------------------------------------------------


def _claims(content: Content, words: Texts) -> str:
    explanation = content.explanation
    if explanation is None:
        return _paragraphs([words("missing.claims", study=content.result.study)], "note")
    references = [claim.evidence["reference"] for claim in explanation.claims if "reference" in claim.evidence]
    intro = words(
        "claims.intro",
        seeds=explanation.seeds,
        epochs=explanation.epochs,
        reference=value_text(next(iter(references), math.nan)),
    )
    cards = (_card(claim, content.claims.get(claim.key), words) for claim in explanation.claims)
    return _paragraphs([intro]) + "".join(cards)


def _card(claim: Claim, figure: Figure | None, words: Texts) -> str:
    texts = [finding(claim, words)]
    if claim.reason:
        texts.append(reason(claim, words))
    badge = f'<span class="verdict {claim.verdict}">{escape(words(f"verdict.{claim.verdict}"))}</span>'
    head = f"<h3>{inline(words(f'claim.{claim.key}'))}</h3>{badge}"
    sentences = _paragraphs(texts) + _paragraphs([effect(claim, words)], "note")
    chart = as_html(figure) if figure is not None else ""
    return f'<div class="card" id="{claim.key}">{head}{sentences}{chart}</div>\n'


# -- the sweeps of a family ----------------------------------------------------------------------------------------


def _sweeps(trend: Trend, content: Content, words: Texts) -> str:
    chart = _figure(content.charts.get("sweeps"), words("missing.sweeps"), words("caption.sweeps", key=trend.key))
    return _paragraphs(verdict_sentences(trend, words)) + chart


# -- what to do, and how to do it again ----------------------------------------------------------------------------


def _flags(content: Content, words: Texts) -> str:
    if not content.flags:
        return _paragraphs([words("missing.flags")], "note")
    lines = (f"<li>{inline(flag_text(flag, words))}</li>" for flag in content.flags)
    return f'<ul class="flags">{"".join(lines)}</ul>'


def _reproduce(content: Content, words: Texts) -> str:
    result, study = content.result, content.result.study
    facts = {words("reproduce.seed"): str(result.config.get("seed", 0))} | dict(content.versions)
    facts |= {words("reproduce.trained"): result.training} if result.training else {}
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
    commands = [f"wdsearch run {study}.yaml", f"wdsearch explain {study}", f"wdsearch report {study}"]
    commands += [f"wdsearch best {study}"]
    command_list = (
        f"<h3>{escape(words('reproduce.commands'))}</h3><pre><code>{escape(chr(10).join(commands))}</code></pre>"
    )
    file = f"<pre><code>{escape(as_yaml(result.config))}</code></pre>"
    summary = f"<summary>{escape(words('reproduce.file', study=study))}</summary>"
    table = f'<div class="wide"><table class="facts">{rows}</table></div>'
    return _paragraphs([words("reproduce.intro")]) + command_list + f"<details>{summary}{file}</details>" + table
