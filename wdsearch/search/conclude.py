"""Ends a study with its report, Optuna's plots, the picture of the gap, and the best model."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wdsearch.errors import StoppedError
from wdsearch.messages import shown_bytes
from wdsearch.report.gap_plot import plot_gap
from wdsearch.report.texts import Texts
from wdsearch.report.write import FOLDER, write_report
from wdsearch.search.best_model import ExportError, export_best, has_best_weights, requirements, write_weights
from wdsearch.search.progress import SearchProgress
from wdsearch.search.replicate import Watch, configuration_of, trained_again
from wdsearch.storage.attributes import TOKEN
from wdsearch.storage.results import StudyResult
from wdsearch.study.factory import TrialFactory
from wdsearch.tracking.description import study_description
from wdsearch.tracking.report import log_report
from wdsearch.tracking.tracker import DESCRIPTION, Tracker

MODEL_FOLDER = "model"
"""Folder of a run in which the best network lies."""


def conclude(
    result: StudyResult, factory: TrialFactory, tracker: Tracker, progress: SearchProgress, step: int, watch: Watch
) -> None:
    """Add the study's result to its record. Parts that cannot be drawn or exported are warned of: no study fails by it.

    If the best trial's weights are on another machine, it is trained again; `watch` hears how far that is, and may end it.
    """
    metrics: dict[str, float] = {}
    if result.best is not None:
        metrics = dict(zip(result.goals, result.best.values, strict=True)) | result.best.result.metrics
    parts: dict[str, Callable[[StudyResult, Tracker], None]] = {
        "the report": _report,
        "the picture of the gap": _picture,
        "Optuna's plots": _optunas_plots,
    }
    for name, write in parts.items():
        with _warned(name, progress):
            write(result, tracker)
    if result.best is not None and not factory.solo:
        with _warned("the best model", progress):
            _model(result, factory, tracker, progress, watch)
    number = str(result.best.number) if result.best else "none"
    memory = {f"memory.{name}": shown_bytes(count) for name, count in result.memory.items()}
    tags = {"best.trial": number, "training": result.training, DESCRIPTION: study_description(result)}
    tracker.end_study(metrics, tags | memory, step)


@contextmanager
def _warned(name: str, progress: SearchProgress) -> Iterator[None]:
    """Warn of a part that could not be made, and go on."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StoppedError:
        raise
    except Exception as error:  # whatever libraries make of a user's study
        progress.warn(f"{name} could not be made: {type(error).__name__}: {error}")


def _picture(result: StudyResult, tracker: Tracker) -> None:
    """Log the picture of the report, which takes a second to draw; where that failed, one of its own."""
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


def _get_weights(result: StudyResult, factory: TrialFactory, progress: SearchProgress, watch: Watch) -> None:
    """Train the best trial again unless its weights are here: the same, to the bit on machines of one kind."""
    best = result.best
    assert best is not None
    if not has_best_weights(result):
        progress.note(f"the weights of trial {best.number}, the best, are not on this machine: it is trained again")
        token = result.optuna_study.user_attrs[TOKEN]
        metrics, state = trained_again(factory, configuration_of(best.result), watch)
        if metrics != best.result.metrics:
            progress.warn("here it ends with other numbers than there, and the weights are those of here")
        write_weights(result.weights, token, best.number, best.values, state)


def _model(
    result: StudyResult, factory: TrialFactory, tracker: Tracker, progress: SearchProgress, watch: Watch
) -> None:
    """Register the best network; one that no registry takes is kept as far as it can be, on the study's run."""
    assert result.best is not None
    _get_weights(result, factory, progress, watch)
    try:
        export = export_best(factory, result)
    except ExportError as error:
        tracker.log_artifact(result.weights, MODEL_FOLDER)
        progress.note(f"the best network is kept by its weights, {result.weights.name}, and not exported: {error}")
        return
    if not export.arguments:
        tracker.log_model(export.path, result.best.number, requirements())
        return
    for path in (export.path, result.weights):
        tracker.log_artifact(path, MODEL_FOLDER)
    text = f"the best network is kept as {export.path.name} and {result.weights.name}, and not registered"
    progress.note(f"{text}: a registered model is called with a single tensor, and this one with {export.arguments}")
