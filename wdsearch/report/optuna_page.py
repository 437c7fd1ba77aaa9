"""Optuna's own plots of a study, on one page that opens offline."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from wdsearch.analysis.importance import importances
from wdsearch.report.page import inline
from wdsearch.report.texts import Texts
from wdsearch.report.to_html import html_of, library
from wdsearch.storage.results import StudyResult

MOST_IN_CONTOUR = 60
"""Trials of a contour: it holds a value for each pair of them, 150 MB for 1,000 trials of four keys."""
MOST_KEYS = 4
"""Keys of slice and contour; the most important ones."""
_STYLE = "body{margin:0 auto;max-width:1100px;padding:16px;font:16px/1.5 system-ui,sans-serif;color:#1d2731}"


def write_optuna_page(result: StudyResult, words: Texts) -> Path | None:
    """History, importances, slice, contour and, of several goals, the Pareto front; None if there is nothing to draw."""
    plots = _drawn(result)
    if not plots:
        return None
    title = escape(words("optuna.title", study=result.study))
    figures = "\n".join(html_of(figure, f"optuna-{name}") for name, figure in plots.items())
    complete, in_contour = result.counts["complete"], min(result.counts["complete"], MOST_IN_CONTOUR)
    sentences = [words("optuna.intro")]
    if in_contour < complete and "contour" in plots:
        sentences.append(words("optuna.contour", count=in_contour, all=complete))
    path = result.folder / "plots" / "optuna.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
    intro = "".join(f"<p>{inline(sentence)}</p>" for sentence in sentences)
    head += f"<style>{_STYLE}</style><script>{library()}</script>"
    page = f'<!DOCTYPE html>\n<html lang="{words.language}"><head>{head}</head>\n'
    path.write_text(f"{page}<body><h1>{title}</h1>{intro}\n{figures}</body></html>\n", encoding="utf-8")
    return path


def _drawn(result: StudyResult) -> dict[str, Any]:
    """The plots that this study's trials allow, by name."""
    from optuna import visualization as optunas

    study, goals = result.optuna_study, result.goals
    several, complete = len(study.directions) > 1, result.counts["complete"]
    if not complete:
        return {}
    first: dict[str, Any] = {"target": lambda trial: trial.values[0], "target_name": goals[0]} if several else {}
    shares = importances(result)
    searched = dict.fromkeys(name for trial in study.get_trials(deepcopy=False) for name in trial.distributions)
    keys = list(shares or searched)[:MOST_KEYS] if complete > 1 else []
    plots: dict[str, Callable[[], Any]] = {"history": lambda: optunas.plot_optimization_history(study, **first)}
    if shares:
        plots["importances"] = lambda: optunas.plot_param_importances(study, **first)
    if keys:
        plots["slice"] = lambda: optunas.plot_slice(study, keys, **first)
    if len(keys) > 1:
        plots["contour"] = lambda: optunas.plot_contour(_thinned(study), keys, **first)
    if 1 < len(goals) <= 3:
        plots["pareto"] = lambda: optunas.plot_pareto_front(study, target_names=list(goals))
    with _quiet():
        return {name: figure for name, plot in plots.items() if (figure := _tried(name, plot)) is not None}


def _tried(name: str, plot: Callable[[], Any]) -> Any:
    """A plot, or None where Optuna cannot draw this study."""
    try:
        return plot()
    except (ValueError, RuntimeError, KeyError, ZeroDivisionError) as error:
        logging.getLogger(__name__).info("optuna draws no %s: %s", name, error)
        return None


def _thinned(study: optuna.Study) -> optuna.Study:
    """The study with few enough complete trials for a contour, evenly from all of the search; itself if it has few."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) <= MOST_IN_CONTOUR:
        return study
    chosen = {round(index * (len(complete) - 1) / (MOST_IN_CONTOUR - 1)) for index in range(MOST_IN_CONTOUR)}
    sample = optuna.create_study(directions=study.directions)
    sample.add_trials([complete[index] for index in sorted(chosen)])
    return sample


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Optuna's notes on what it leaves out: they are for those who call it directly."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
