"""Writes a study's report: one HTML file with everything in it, and a PNG of each figure beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from wdsearch.analysis.advice import flags
from wdsearch.analysis.outcomes import Explanation, explanation_of
from wdsearch.analysis.trend import Trend, trend_in
from wdsearch.report.claim_charts import claim_charts
from wdsearch.report.figures import Figure
from wdsearch.report.importance_charts import importance_chart, interaction_chart
from wdsearch.report.page import Content, body
from wdsearch.report.study_charts import gap_chart, path_chart
from wdsearch.report.sweep_charts import sweeps_chart
from wdsearch.report.texts import Texts
from wdsearch.report.to_html import library
from wdsearch.report.to_image import chinese_font, draw
from wdsearch.storage.attributes import FAMILY, VERSIONS
from wdsearch.storage.home import Home
from wdsearch.storage.provenance import provenance
from wdsearch.storage.results import StudyResult, spent
from wdsearch.strategies.optuna_private import storage_of

FOLDER = "report"
"""Name of the report's folder in the study's folder, and among the parent run's artifacts."""


@dataclass(frozen=True)
class Report:
    """The files of a report: the page, a picture of each of its figures, and notes for the user."""

    page: Path
    pictures: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def write_report(result: StudyResult, words: Texts) -> Report:
    """Write a study's report into its folder: `report.html` in English, `report.zh.html` in Chinese."""
    explanation = explanation_of(result)
    charts, claims = _charts(result, explanation, words)
    content = Content(result, explanation, flags(result), charts, claims, _versions(result, words), _trend(result))
    suffix = "" if words.language == "en" else f".{words.language}"
    folder = result.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"report{suffix}.html"
    page.write_text(_page(content, words), encoding="utf-8")
    pictures, notes = _pictures(content, folder, suffix, words)
    return Report(page, pictures, notes)


def _charts(
    result: StudyResult, explanation: Explanation | None, words: Texts
) -> tuple[Mapping[str, Figure], Mapping[str, Figure]]:
    """The charts that a study's trials allow, and those of the claims, by name."""
    family_trend = _trend(result)
    charts = {
        "gap": gap_chart(result, words, explanation=explanation),
        "path": path_chart(result, explanation, words),
        "importance": importance_chart(result, words),
        "interaction": interaction_chart(result, explanation, words),
        "sweeps": sweeps_chart(family_trend, words) if family_trend else None,
    }
    drawn = {name: figure for name, figure in charts.items() if figure is not None}
    return drawn, claim_charts(explanation, words) if explanation else {}


def _trend(result: StudyResult) -> Trend | None:
    """The trend of a sweep's family; None of a study that is no sweep, or its family's only one."""
    family = result.optuna_study.user_attrs.get(FAMILY)
    if family is None:
        return None
    trend = trend_in(storage_of(result.optuna_study), family, Home(result.folder.parent.parent))
    return trend if len(trend.sweeps) > 1 else None


def _page(content: Content, words: Texts) -> str:
    result = content.result
    counts = [words(f"count.{name}", count=count) for name, count in result.counts.items() if count]
    budget = result.config.get("budget", {})
    subtitle = words(
        "page.subtitle",
        spent=spent(result.counts),
        budget=budget.get("trials", 0),
        epochs=budget.get("epochs", 0),
        counts=words("list.join").join(counts),
        version=version("wdsearch"),
        date=date.today().isoformat(),
    )
    template = Template((files("wdsearch.report") / "report.html").read_text(encoding="utf-8"))
    return template.substitute(
        language=words.language,
        title=words("page.title", study=result.study),
        subtitle=subtitle,
        library=library(),
        body=body(content, words),
    )


def _versions(result: StudyResult, words: Texts) -> dict[str, str]:
    """Versions as they were recorded when the study was trained, else the present ones, under a line that says which."""
    stored: Mapping[str, Any] = result.optuna_study.user_attrs.get(VERSIONS, {})
    head = words("reproduce.versions" if stored else "reproduce.versions_now")
    versions = dict(stored or provenance())
    return {head: "", **{name.removeprefix("version."): str(value) for name, value in versions.items()}}


def _pictures(content: Content, folder: Path, suffix: str, words: Texts) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """A PNG of each figure; in English where no font has the characters of the language."""
    family, notes = None, []
    charts = [*content.charts.values(), *content.claims.values()]
    if words.language == "zh" and charts:
        family = chinese_font()
    if words.language == "zh" and charts and family is None:
        notes.append(words("note.no_font"))
        english = _charts(content.result, content.explanation, Texts("en"))
        charts, suffix = [figure for figures_by_name in english for figure in figures_by_name.values()], ""
    paths = []
    for figure in charts:
        paths.append(folder / f"{figure.name}{suffix}.png")
        draw(figure, paths[-1], family)
    return tuple(paths), tuple(notes)
