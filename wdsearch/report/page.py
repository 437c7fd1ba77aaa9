"""The report as one HTML page: words, tables and figures put together; nothing is read or written here."""

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
from wdsearch.report.sentences import answer, comparison, effect, finding, flag_text, value_text
from wdsearch.report.sweep_charts import verdict_sentences
from wdsearch.report.texts import Texts
from wdsearch.report.to_html import as_html
from wdsearch.storage.results import StudyResult
from wdsearch.study.file import as_yaml


@dataclass(frozen=True)
class Content:
    """All that a report tells: a study, what was explained of it, what to do next, charts by name and by claim.

    `trend` is there for one of several sweeps.
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
    """A text in which `code` and **strong** words are marked, as HTML."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked)


def _paragraphs(texts: Iterable[str], kind: str = "") -> str:
    start = f'<p class="{kind}">' if kind else "<p>"
    return "\n".join(f"{start}{inline(text)}</p>" for text in texts)


def _figure(figure: Figure | None, missing: str, *captions: str) -> str:
    """A figure with its caption, or why there is none."""
    if figure is None:
        return _paragraphs([missing], "note")
    told = " ".join(inline(caption) for caption in captions)
    return f"<figure><h3>{escape(figure.title)}</h3>{as_html(figure)}<figcaption>{told}</figcaption></figure>\n"


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
    told = content.explanation
    caption = words("caption.path_of_trials", study=content.result.study)
    if told:
        caption = words("caption.path", key=told.decay, seeds=told.seeds)
    return _figure(content.charts.get("path"), words("missing.path"), caption)


def _importance(content: Content, words: Texts) -> str:
    complete, study, told = content.result.counts["complete"], content.result.study, content.explanation
    share = f"{100 * best_share(complete):.0f}" if complete else ""
    first = _figure(
        content.charts.get("importance"),
        words("missing.importance"),
        words("caption.importance", share=share, count=complete),
    )
    figure = content.charts.get("interaction")
    grid = told is not None and figure is not None and figure.panels[0].heat is not None
    caption = words("caption.grid", seeds=told.seeds) if told and grid else words("caption.interaction", study=study)
    return first + _figure(figure, words("missing.interaction"), caption)


# -- claims --------------------------------------------------------------------------------------------------------


def _claims(content: Content, words: Texts) -> str:
    told = content.explanation
    if told is None:
        return _paragraphs([words("missing.claims", study=content.result.study)], "note")
    reference = next((c.evidence["reference"] for c in told.claims if "reference" in c.evidence), math.nan)
    intro = words("claims.intro", seeds=told.seeds, epochs=told.epochs, reference=value_text(reference))
    return _paragraphs([intro]) + "".join(_card(claim, content.claims.get(claim.key), words) for claim in told.claims)


def _card(claim: Claim, figure: Figure | None, words: Texts) -> str:
    texts = [finding(claim, words)]
    if claim.reason:
        texts.append(words(f"reason.{claim.reason}"))
    badge = f'<span class="verdict {claim.verdict}">{escape(words(f"verdict.{claim.verdict}"))}</span>'
    head = f"<h3>{inline(words(f'claim.{claim.key}'))}</h3>{badge}"
    told = _paragraphs(texts) + _paragraphs([effect(claim, words)], "note")
    drawn = as_html(figure) if figure is not None else ""
    return f'<div class="card" id="{claim.key}">{head}{told}{drawn}</div>\n'


# -- the sweeps of a family ----------------------------------------------------------------------------------------


def _sweeps(found: Trend, content: Content, words: Texts) -> str:
    drawn = _figure(content.charts.get("sweeps"), words("missing.sweeps"), words("caption.sweeps", key=found.key))
    return _paragraphs(verdict_sentences(found, words)) + drawn


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
    told = f"<h3>{escape(words('reproduce.commands'))}</h3><pre><code>{escape(chr(10).join(commands))}</code></pre>"
    file = f"<pre><code>{escape(as_yaml(result.config))}</code></pre>"
    summary = f"<summary>{escape(words('reproduce.file', study=study))}</summary>"
    table = f'<div class="wide"><table class="facts">{rows}</table></div>'
    return _paragraphs([words("reproduce.intro")]) + told + f"<details>{summary}{file}</details>" + table
