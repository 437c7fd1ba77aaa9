"""Pictures of a study."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wdsearch.groups import split_key
from wdsearch.results import StudyResult, TrialRecord


class NotSearchedError(Exception):
    """A strength that no finished trial of the study has."""


COMPLETE, PRUNED, BASELINE, BEST = "#1f5fa8", "#b9c4d0", "#c1440e", "#d98200"


def plot_gap(result: StudyResult, path: Path | None = None, key: str | None = None) -> Any:
    """Gap, and validation loss below it, against a strength; the matplotlib figure, written to `path` if given.

    `key` defaults to weight_decay if the study searches it, else to its first regularizer. Trials at which it is off
    stand at the left edge; pruned ones are pale, for their gap is that of an early epoch.
    """
    from matplotlib.figure import Figure

    searched = list(dict.fromkeys(name for trial in result.trials for name in trial.result.strengths))
    decays = [name for name in searched if split_key(name)[0] == "weight_decay"]
    key = key or next(iter([*decays, *searched]), "weight_decay")
    if key not in searched:
        raise NotSearchedError(
            f"study {result.study!r} has no {key!r} to plot; it has: {', '.join(searched) or 'none'}"
        )
    figure = Figure(figsize=(8.0, 5.6))
    figure.subplots_adjust(left=0.11, right=0.97, bottom=0.1, top=0.93, hspace=0.1)  # at half the cost of "constrained"
    upper, lower = figure.subplots(2, 1, sharex=True)
    measured = [trial for trial in result.trials if {"val_loss", "gap"} <= trial.result.metrics.keys()]
    points = [trial for trial in measured if key in trial.result.strengths]
    positive = [value for trial in points if 0 < (value := trial.result.strengths[key]) < math.inf]
    logarithmic = bool(positive) and max(positive) > 30 * min(positive)
    left = min(positive, default=1.0) / 2 if logarithmic else 0.0
    for axes, quantity in ((upper, "gap"), (lower, "val_loss")):
        _scatter(axes, points, key, quantity, left)
        _mark(axes, result, key, quantity, left)
        axes.set_ylabel({"gap": "gap: validation − training loss", "val_loss": "validation loss"}[quantity])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if logarithmic:
        lower.set_xscale("log")
    lower.set_xlabel(f"{key} (left edge: off)" if any(_off(trial, key) for trial in points) else key)
    upper.legend(loc="best", fontsize="small", frameon=False)
    upper.set_title(f"{result.study}: what {key} does to the generalization gap", loc="left", fontsize="medium")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    return figure


def _scatter(axes: Any, trials: list[TrialRecord], key: str, quantity: str, left: float) -> None:
    for state, color, label in (("PRUNED", PRUNED, "pruned (early epoch)"), ("COMPLETE", COMPLETE, "complete")):
        of_state = [trial for trial in trials if trial.state == state]
        places = [_position(trial, key, left) for trial in of_state]
        values = [trial.result.metrics[quantity] for trial in of_state]
        axes.scatter(places, values, s=26, color=color, label=f"{label}: {len(of_state)}", zorder=3)


def _mark(axes: Any, result: StudyResult, key: str, quantity: str, left: float) -> None:
    """The baseline as a line, the best trial as a star."""
    if result.baseline is not None:
        value = result.baseline.metrics[quantity]
        label = f"unregularized baseline {value:.2f}"
        axes.axhline(value, color=BASELINE, linestyle="--", linewidth=1.2, label=label)
    if result.best is not None:
        place = _position(result.best, key, left)
        axes.plot(place, result.best.result.metrics[quantity], "*", markersize=15, color=BEST, label="best trial")


def _off(trial: TrialRecord, key: str) -> bool:
    return trial.result.strengths[key] in (0.0, math.inf)


def _position(trial: TrialRecord, key: str, left: float) -> float:
    return left if _off(trial, key) else trial.result.strengths[key]


def draw_trial(
    path: Path, name: str, curves: Mapping[str, Mapping[int, float]], histogram: Mapping[str, list[Any]]
) -> None:
    """A trial in one picture: losses, gap, and the distribution of its weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.2))
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.16, top=0.88, wspace=0.22)
    losses, gap, weights = figure.subplots(1, 3)
    for axes, title, lines in (
        (losses, f"{name}: loss", {"loss/train": (BASELINE, "training"), "loss/val": (COMPLETE, "validation")}),
        (gap, "gap", {"loss/gap": (COMPLETE, "validation − training")}),
    ):
        for metric, (color, label) in lines.items():
            epochs = sorted(curves.get(metric, {}).items())
            axes.plot([age for age, _ in epochs], [value for _, value in epochs], color=color, label=label)
        axes.set_xlabel("epoch")
        axes.legend(loc="best", fontsize="small", frameon=False)
        _plain(axes, title)
    if histogram.get("counts"):
        weights.stairs(histogram["counts"], histogram["edges"], fill=True, color=COMPLETE)
        weights.set_yscale("log", nonpositive="clip")
    weights.set_xlabel("weight")
    _plain(weights, "decayed weights: count, in logarithms")
    figure.savefig(path, dpi=90)


def _plain(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
