"""Pictures of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wdsearch.figures import BASELINE, COMPLETE
from wdsearch.results import StudyResult


class NotSearchedError(Exception):
    """A strength that no finished trial of the study has."""


def plot_gap(result: StudyResult, path: Path | None = None, key: str | None = None) -> Any:
    """Gap, and validation loss below it, against a strength; the matplotlib figure, written to `path` if given.

    `key` defaults to weight_decay if the study searches it, else to its first regularizer. Trials at which it is off
    stand at the end of the axis; pruned ones are pale, for their gap is that of an early epoch.
    Raises NotSearchedError for a strength that no trial has, or a study whose trials have no loss yet.
    """
    from wdsearch.charts import gap_chart, main_key, searched_keys  # load torch, and a delivery draws trials without
    from wdsearch.pictures import draw
    from wdsearch.texts import Texts

    searched = searched_keys(result)
    key = key or main_key(result)
    if key not in searched:
        raise NotSearchedError(
            f"study {result.study!r} has no {key or 'regularizer'!r} to plot; it has: {', '.join(searched) or 'none'}"
        )
    figure = gap_chart(result, Texts(), key)
    if figure is None:
        raise NotSearchedError(f"study {result.study!r} has no trial with a gap or a loss to plot yet")
    return draw(figure, path)


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
