"""Charts of a study along λ: the gap of its trials, and the path on which only λ varies."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from wdsearch.analysis.one_standard_error import OneStandardError, one_standard_error
from wdsearch.analysis.outcomes import ARM, Explanation, Outcome
from wdsearch.groups import split_key
from wdsearch.messages import shown_number
from wdsearch.regularizers import neutral
from wdsearch.report.figures import (
    BASELINE,
    BEST,
    CHOSEN,
    COMPLETE,
    LINE,
    LOG_FROM,
    OTHER,
    POINTS,
    PRUNED,
    STAR,
    Axis,
    Figure,
    Line,
    Panel,
    Series,
)
from wdsearch.report.texts import Texts
from wdsearch.storage.results import DECAYS, StudyResult, TrialRecord, main_key
from wdsearch.trial.result import Result

# -- gap over λ ----------------------------------------------------------------------------------------------------


def gap_chart(
    result: StudyResult, words: Texts, key: str | None = None, explanation: Explanation | None = None
) -> Figure | None:
    """Gap, and the validation loss or the first goal below it, of all trials against a strength; None without trials.

    Trials at which it is off stand apart at the end of the axis; pruned ones are pale, for their values are an early epoch's.
    """
    key = key or main_key(result)
    measured = {name for trial in result.trials for name in trial.result.metrics}
    quantities = [name for name in ("gap", loss_of(result)) if name in measured]
    if key is None or not quantities:
        return None
    panels = tuple(_trials_panel(result, key, quantity, words) for quantity in dict.fromkeys(quantities))
    axis = strength_axis(key, [trial.result.strengths.get(key, math.nan) for trial in result.trials], words)
    title = words("title.gap", study=result.study, key=key)
    marks = _chosen_mark(explanation, result, words) if explanation and explanation.decay == key else ()
    return Figure("gap", title, axis, panels, marks)


def loss_of(result: StudyResult) -> str:
    """The metric that is drawn as the loss: validation loss, or the first goal where a user-defined module has none."""
    has_loss = any("val_loss" in trial.result.metrics for trial in result.trials)
    return "val_loss" if has_loss or not result.goals else result.goals[0]


def _trials_panel(result: StudyResult, key: str, quantity: str, words: Texts) -> Panel:
    series = []
    for state, color in (("PRUNED", PRUNED), ("COMPLETE", COMPLETE)):
        of_state = [trial for trial in result.trials if trial.state == state and key in trial.result.strengths]
        name = words(f"series.{state.lower()}", count=sum(trial.state == state for trial in result.trials))
        series.append(_points(of_state, key, quantity, _Look(name, color), words))
    if result.best is not None and key in result.best.result.strengths:
        name = words("series.best", number=result.best.number)
        series.append(_points([result.best], key, quantity, _Look(name, BEST, STAR), words))
    levels = []
    if result.baseline is not None and quantity in result.baseline.metrics:
        levels = [Line(result.baseline.metrics[quantity], words("series.baseline"), BASELINE)]
    values = [value for drawn in series for value in drawn.y]
    axis = value_axis(words.metric(quantity), words, log=quantity != "gap" and _is_wide(values))
    return Panel(axis, tuple(drawn for drawn in series if drawn.x), tuple(levels))


class _Look(NamedTuple):
    name: str
    color: str
    marker: str = POINTS


def _points(trials: Sequence[TrialRecord], key: str, quantity: str, look: _Look, words: Texts) -> Series:
    measured = [trial for trial in trials if quantity in trial.result.metrics]
    return Series(
        look.name,
        tuple(trial.result.strengths[key] for trial in measured),
        tuple(trial.result.metrics[quantity] for trial in measured),
        look.marker,
        look.color,
        labels=tuple(words("label.trial", number=trial.number, epochs=trial.result.epochs) for trial in measured),
    )


def strength_axis(key: str, values: Iterable[float], words: Texts) -> Axis:
    """A strength's axis: logarithmic over wide ranges, its neutral value apart.

    >>> strength_axis("weight_decay", [0.0, 0.1, 1.0], Texts("en"))
    Axis(title='weight_decay (left end: off)', log=True, off=0.0, off_label='off', names=(), beyond='')
    """
    strengths = list(values)
    off = neutral(key)
    log = split_key(key)[0] in DECAYS or _is_wide([value for value in strengths if value != off])
    is_off = off in strengths
    end = words("axis.off_right" if off == math.inf else "axis.off_left")
    title = f"{key} ({end})" if is_off and (log or math.isinf(off)) else key
    return Axis(title, log, off if is_off else None, words("axis.off"))


def value_axis(title: str, words: Texts, log: bool = False) -> Axis:
    """The axis of a measured quantity, with a note for outliers at its edge.

    >>> value_axis("gap", Texts("en")).beyond
    'outliers at the edge'
    """
    return Axis(title, log, beyond=words("axis.beyond"))


def strength_text(key: str, value: float, words: Texts) -> str:
    """A strength's value as text, or `off`.

    >>> strength_text("dropout", 0.25, Texts("en")), strength_text("dropout", 0.0, Texts("en"))
    ('0.25', 'off')
    """
    return words("axis.off") if value == neutral(key) else shown_number(value)


def _is_wide(values: Iterable[float]) -> bool:
    positive = [value for value in values if 0 < value < math.inf]
    return bool(positive) and max(positive) > LOG_FROM * min(positive)


# -- along λ alone -------------------------------------------------------------------------------------------------


def chosen_strength(explanation: Explanation, result: StudyResult) -> OneStandardError | None:
    """λ.1se by the study's first goal, or by validation loss where the outcomes do not have that goal."""
    goal = result.goals[0] if result.goals else "val_loss"
    maximized = bool(result.goals) and result.optuna_study.directions[0].name == "MAXIMIZE"
    if not any(goal in outcome.metrics for outcome in explanation.outcomes):
        goal, maximized = "val_loss", False
    sign = -1.0 if maximized else 1.0
    return one_standard_error(explanation.along(lambda outcome: sign * outcome.metric(goal)))


def _chosen_mark(explanation: Explanation, result: StudyResult, words: Texts) -> tuple[Line, ...]:
    strengths = chosen_strength(explanation, result)
    if strengths is None:
        return ()
    value = strength_text(explanation.decay, strengths.chosen, words)
    return (Line(strengths.chosen, words("mark.one_se", value=value), CHOSEN),)


def path_chart(result: StudyResult, explanation: Explanation | None, words: Texts) -> Figure | None:
    """Losses and the weights' norm along λ alone; without an explanation those of the complete trials."""
    if explanation and any(outcome.arm == ARM for outcome in explanation.outcomes):
        return _replicated_path(result, explanation, words)
    key = main_key(result)
    complete = [trial for trial in result.trials if trial.state == "COMPLETE" and key in trial.result.strengths]
    if key is None or not complete:
        return None
    norms = [trial for trial in complete if _norm(trial.result) is not None]
    sides = (("train_loss", BASELINE), ("val_loss", COMPLETE))
    losses = tuple(_points(complete, key, side, _Look(words(f"series.{side}"), color), words) for side, color in sides)
    panels = [Panel(_loss_axis(losses, words), tuple(loss for loss in losses if loss.x))]
    if norms:
        strengths = tuple(trial.result.strengths[key] for trial in norms)
        heights = tuple(_norm(trial.result) or 0.0 for trial in norms)
        labels = tuple(words("label.trial", number=trial.number, epochs=trial.result.epochs) for trial in norms)
        series = Series(words("series.norm"), strengths, heights, color=OTHER, labels=labels)
        panels.append(Panel(value_axis(words("axis.norm"), words, log=_is_wide(heights)), (series,)))
    axis = strength_axis(key, [trial.result.strengths[key] for trial in complete], words)
    drawn = tuple(panel for panel in panels if panel.series)
    return Figure("path", words("title.path_of_trials", study=result.study, key=key), axis, drawn) if drawn else None


def _norm(result: Result) -> float | None:
    return result.diagnosis.whole.get("norm")


def _replicated_path(result: StudyResult, explanation: Explanation, words: Texts) -> Figure | None:
    losses = tuple(
        mean_line(explanation.along(_metric(side)), words(f"series.{side}"), color)
        for side, color in (("train_loss", BASELINE), ("val_loss", COMPLETE))
    )
    gap = mean_line(explanation.along(_metric("gap")), words("series.gap"), CHOSEN)
    norm = mean_line(explanation.along(lambda outcome: outcome.measures.get("norm")), words("series.norm"), OTHER)
    panels = [
        Panel(_loss_axis(losses, words), tuple(loss for loss in losses if loss.x)),
        Panel(value_axis(words("curve.gap"), words), (gap,) if gap.x else ()),
        Panel(value_axis(words("curve.norm"), words, log=_is_wide(norm.y)), (norm,) if norm.x else ()),
    ]
    values = {value for panel in panels for series in panel.series for value in series.x}
    title = words("title.path", study=explanation.study, key=explanation.decay, seeds=explanation.seeds)
    drawn = tuple(panel for panel in panels if panel.series)
    marks = _chosen_mark(explanation, result, words)
    return Figure("path", title, strength_axis(explanation.decay, values, words), drawn, marks) if drawn else None


def _metric(name: str) -> Callable[[Outcome], float | None]:
    return lambda outcome: outcome.metrics.get(name)


def _loss_axis(losses: Sequence[Series], words: Texts) -> Axis:
    return value_axis(words("axis.loss"), words, log=_is_wide(value for loss in losses for value in loss.y))


def mean_line(losses: dict[float, dict[int, float]], name: str, color: str, dashed: bool = False) -> Series:
    """Means over the seeds at each strength, with a band of one standard error on either side.

    >>> line = mean_line({0.1: {0: 1.0, 1: 3.0}, 1.0: {0: math.inf}}, name="loss", color="#1f5fa8")
    >>> line.x, line.y, line.low, line.high
    ((0.1,), (2.0,), (1.0,), (3.0,))
    """
    finite: dict[float, list[float]] = {}
    for strength, by_seed in losses.items():
        if values := [value for value in by_seed.values() if math.isfinite(value)]:
            finite[strength] = values
    means = [statistics.fmean(values) for values in finite.values()]
    errors = [_standard_error(values) for values in finite.values()]
    low = tuple(mean - error for mean, error in zip(means, errors, strict=True))
    high = tuple(mean + error for mean, error in zip(means, errors, strict=True))
    return Series(name, tuple(finite), tuple(means), LINE, color, low, high, dashed=dashed)


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
