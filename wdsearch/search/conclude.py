"""What the end of a study leaves behind: its report, Optuna's plots, the picture of the gap, and the best model."""

import shutil
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wdsearch.errors import StoppedError
from wdsearch.messages import shown_bytes
from wdsearch.report.gap_plot import plot_gap
from wdsearch.report.texts import Texts
from wdsearch.report.write import FOLDER, write_report
from wdsearch.search.best_model import has_best_weights, keep_weights
from wdsearch.search.replicate import Watch, configuration_of, trained_again
from wdsearch.storage.attributes import TOKEN
from wdsearch.storage.results import StudyResult
from wdsearch.study.factory import TrialFactory
from wdsearch.tracking.description import study_description
from wdsearch.tracking.report import log_report
from wdsearch.tracking.tracker import DESCRIPTION, Tracker


def conclude(
    result: StudyResult, factory: TrialFactory, tracker: Tracker, note: Callable[[str], None], step: int, watch: Watch
) -> None:
    """Add what was found to the study's record. What cannot be drawn or exported is noted: no study fails by it.

    If the best trial's weights are on another machine, it is trained again; `watch` is told how far that is, and may end it.
    """
    metrics: dict[str, float] = {}
    if result.best is not None:
        metrics = dict(zip(result.goals, result.best.values, strict=True)) | result.best.result.metrics
    for what, write in (
        ("the report", _report),
        ("the picture of the gap", _picture),
        ("Optuna's plots", _optunas_plots),
    ):
        with _noted(what, note):
            write(result, tracker)
    if result.best is not None and not factory.solo:
        with _noted("the best model", note):
            _model(result, factory, tracker, note, watch)
    number = str(result.best.number) if result.best else "none"
    memory = {f"memory.{name}": shown_bytes(count) for name, count in result.memory.items()}
    tags = {"best.trial": number, "training": result.training, DESCRIPTION: study_description(result)}
    tracker.end_study(metrics, tags | memory, step)


@contextmanager
def _noted(what: str, note: Callable[[str], None]) -> Any:
    """Say what could not be done, and go on."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StoppedError:
        raise
    except Exception as error:  # whatever libraries make of a user's study
        from rich.markup import escape

        note(f"[yellow]warning[/yellow] {what} could not be made: {escape(f'{type(error).__name__}: {error}')}")


def _picture(result: StudyResult, tracker: Tracker) -> None:
    """The one of the report, which takes a second to draw; where that failed, one of its own."""
    picture, drawn = result.folder / "gap.png", _drawn(result)
    if drawn.exists():
        shutil.copyfile(drawn, picture)
    elif any(trial.result.strengths and "gap" in trial.result.metrics for trial in result.trials):
        plot_gap(result, picture)
    else:
        return
    tracker.log_artifact(picture)


def _drawn(result: StudyResult) -> Path:

    return result.folder / FOLDER / "gap.png"


def _report(result: StudyResult, tracker: Tracker) -> None:

    _drawn(result).unlink(missing_ok=True)  # of an earlier run, if this one's report fails
    log_report(tracker, write_report(result, Texts()))


def _optunas_plots(result: StudyResult, tracker: Tracker) -> None:
    from wdsearch.report.optuna_page import write_optuna_page

    path = write_optuna_page(result, Texts())
    if path is not None:
        tracker.log_artifact(path, path.parent.name)


def _get_weights(result: StudyResult, factory: TrialFactory, note: Callable[[str], None], watch: Watch) -> None:
    """The same trial gives the same weights, to the bit on machines of one kind."""
    best = result.best
    assert best is not None
    if not has_best_weights(result):
        note(f"the weights of trial {best.number}, the best, are not on this machine: it is trained again")
        token = result.optuna_study.user_attrs[TOKEN]
        metrics, state = trained_again(factory, configuration_of(best.result), watch)
        if metrics != best.result.metrics:
            note(
                "[yellow]warning[/yellow] here it ends with other numbers than there, and the weights are those of here"
            )
        keep_weights(result.weights, token, best.number, best.values, state)


def _model(
    result: StudyResult, factory: TrialFactory, tracker: Tracker, note: Callable[[str], None], watch: Watch
) -> None:
    from wdsearch.search.best_model import export_best, requirements

    assert result.best is not None
    _get_weights(result, factory, note, watch)
    tracker.log_model(export_best(factory, result), result.best.number, requirements())
