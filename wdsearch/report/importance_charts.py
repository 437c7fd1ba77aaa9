"""Charts of the importance of each key, and of two strengths that act together."""

import math
import statistics
from collections.abc import Sequence

from wdsearch.analysis.importance import importances
from wdsearch.analysis.outcomes import Explanation, Outcome
from wdsearch.groups import split_key
from wdsearch.messages import shown_number
from wdsearch.report.figures import BARS, COMPLETE, Axis, Figure, Heat, Panel, Series
from wdsearch.report.study_charts import loss_of, strength_axis, strength_text
from wdsearch.report.texts import Texts
from wdsearch.storage.results import StudyResult, main_key, searched_keys

JOINT_ARM = "dropout"

FEWEST_POINTS = 3
"""Complete trials that a chart of two strengths takes at least."""


def importance_chart(result: StudyResult, words: Texts) -> Figure | None:
    """Importance of each searched key for the first goal, in percent; None with too few trials."""
    shares = importances(result)
    if not shares:
        return None
    keys = list(reversed(shares))  # the first is drawn at the bottom
    percents = tuple(100.0 * shares[key] for key in keys)
    bars = Series("", percents, tuple(map(float, range(len(keys)))), BARS, COMPLETE)
    title = words("title.importance", study=result.study, goal=words.metric(result.goals[0]))
    return Figure("importance", title, Axis(words("axis.share")), (Panel(Axis("", names=tuple(keys)), (bars,)),))


def interaction_chart(result: StudyResult, explanation: Explanation | None, words: Texts) -> Figure | None:
    """The loss over λ and dropout: on a grid over fresh seeds, or of the complete trials."""
    grid = [outcome for outcome in (explanation.outcomes if explanation else ()) if outcome.arm == JOINT_ARM]
    if explanation and grid:
        return _grid_chart(grid, explanation, words)
    key = main_key(result)
    others = [searched for searched in searched_keys(result) if searched != key]
    other = next((searched for searched in others if split_key(searched)[0] == "dropout"), next(iter(others), None))
    loss = loss_of(result)
    complete = [trial for trial in result.trials if trial.state == "COMPLETE" and loss in trial.result.metrics]
    complete = [trial for trial in complete if {key, other} <= trial.result.strengths.keys()]
    if key is None or other is None or len(complete) < FEWEST_POINTS:
        return None
    x = tuple(trial.result.strengths[key] for trial in complete)
    y = tuple(trial.result.strengths[other] for trial in complete)
    values = tuple(trial.result.metrics[loss] for trial in complete)
    labels = tuple(f"{words('label.trial', number=t.number, epochs=t.result.epochs)}<br>{loss} {shown_number(v)}"
                   for t, v in zip(complete, values, strict=True))  # fmt: skip
    series = Series("", x, y, labels=labels, shade=_without_extremes(values))
    panel = Panel(strength_axis(other, y, words), (series,))
    title = words("title.interaction", study=result.study, key=key, other=other)
    return Figure("interaction", title, strength_axis(key, x, words), (panel,), shading=words.metric(loss))


def _without_extremes(values: Sequence[float]) -> tuple[float, ...]:
    """Values cut where they are far above the rest, so that colours tell the others apart."""
    ranked = sorted(values)
    first, third = ranked[len(ranked) // 4], ranked[(3 * len(ranked)) // 4]
    return tuple(min(value, third + 3 * (third - first)) if third > first else value for value in values)


def _grid_chart(grid: Sequence[Outcome], explanation: Explanation, words: Texts) -> Figure | None:
    rates = [key for key in grid[0].strengths if split_key(key)[0] == "dropout"]
    decay = explanation.decay
    if not rates or decay not in grid[0].strengths:
        return None
    cells: dict[tuple[float, float], list[float]] = {}
    for outcome in grid:
        value = outcome.metric("val_loss")
        cells.setdefault((outcome.strengths[decay], outcome.strengths[rates[0]]), []).append(value)
    columns = sorted({column for column, _ in cells})
    rows = sorted({row for _, row in cells})
    means = {point: statistics.fmean(values) for point, values in cells.items()}
    values = tuple(tuple(means.get((column, row), math.nan) for column in columns) for row in rows)
    x = Axis(decay, names=tuple(strength_text(decay, value, words) for value in columns))
    y = Axis(rates[0], names=tuple(strength_text(rates[0], value, words) for value in rows))
    title = words("title.grid", study=explanation.study, key=decay, other=rates[0], seeds=explanation.seeds)
    return Figure("interaction", title, x, (Panel(y, heat=Heat(values)),), shading=words.metric("val_loss"))
