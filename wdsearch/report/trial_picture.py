"""Draws one picture of a trial: losses, gap and the distribution of its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wdsearch.report.figures import BASELINE, COMPLETE


class TrialPicture:
    """Draws trials, each in one picture: losses, gap, and the distribution of its weights.

    The axes are created once, for that takes longer than drawing on them.
    """

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(10.5, 3.2))
        self.figure.subplots_adjust(left=0.06, right=0.985, bottom=0.16, top=0.88, wspace=0.22)
        losses, gap, self.weights = self.figure.subplots(1, 3)
        self.lines = {
            metric: axes.plot([], [], color=color, label=label)[0]
            for axes, metric, color, label in (
                (losses, "loss/train", BASELINE, "training"),
                (losses, "loss/val", COMPLETE, "validation"),
                (gap, "loss/gap", COMPLETE, "validation − training"),
            )
        }
        self.bars = self.weights.stairs([1], [0, 1], fill=True, color=COMPLETE)
        titles = {losses: "loss", gap: "gap", self.weights: "decayed weights: count, in logarithms"}
        for axes, title in titles.items():
            axes.set_title(title, loc="left", fontsize="medium")
            axes.set_xlabel("weight" if axes is self.weights else "epoch")
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        losses.legend(loc="upper right", fontsize="small", frameon=False)
        self.weights.set_yscale("log", nonpositive="clip")
        self.weights.minorticks_off()
        self.weights.yaxis.set_major_formatter("{x:g}")

    def draw(self, path: Path, curves: Mapping[str, Mapping[int, float]], histogram: Mapping[str, list[Any]]) -> None:
        """Write a trial's curves, by metric and epoch, and the histogram of its weights, if there is one."""
        for metric, line in self.lines.items():
            epochs = sorted(curves.get(metric, {}).items())
            line.set_data([age for age, _ in epochs], [value for _, value in epochs])
            line.axes.relim()
            line.axes.autoscale()
        self.weights.set_visible(bool(histogram.get("counts")))
        if histogram.get("counts"):
            counts, edges = histogram["counts"], histogram["edges"]
            self.bars.set_data(counts, edges)
            self.weights.set(xlim=(edges[0], edges[-1]), ylim=(0.7, 1.5 * max(counts)))
        self.figure.savefig(path, dpi=90, pil_kwargs={"compress_level": 1})
