"""Charts of claims: the quantities along the strength that was varied, those of one kind in one panel."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from wdsearch.analysis.outcomes import Claim, Curve, Explanation
from wdsearch.report.figures import BASELINE, CHOSEN, COMPLETE, LINE, LOG_FROM, OTHER, Axis, Figure, Panel, Series
from wdsearch.report.study_charts import strength_axis, value_axis
from wdsearch.report.texts import Texts


class _Target(NamedTuple):
    """Panel of a curve, its name there, and its colour."""

    panel: str
    name: str = ""
    color: str = ""
    dashed: bool = False


_TARGETS = {
    "train_loss": _Target("loss", "series.train_loss", BASELINE),
    "val_loss": _Target("loss", "series.val_loss", COMPLETE),
    "rotation": _Target("rotation", "series.rotation", COMPLETE),
    "predicted_rotation": _Target("rotation", "series.predicted_rotation", OTHER, dashed=True),
}
_SIDES = {
    "off": ("series.off", BASELINE),
    "on": ("series.on", COMPLETE),
    "l1": ("series.l1", CHOSEN),
    "decay": ("series.decay", COMPLETE),
}
_RATES = (COMPLETE, CHOSEN, "#d98200", OTHER, BASELINE)
_HEIGHTS = ("zeros", "diverged", "tiny")
"""Shares, which stay on a linear axis."""


def claim_chart(claim: Claim, explanation: Explanation, words: Texts) -> Figure | None:
    """The quantities that a claim is judged by; None if none of them was measured."""
    panels: dict[str, list[Series]] = {}
    for number, (name, curve) in enumerate(claim.curves.items()):
        target = _target(name, number, words)
        if curve.x:
            panels.setdefault(target.panel, []).append(_series(curve, target))
    if not panels:
        return None
    all_series = [series for in_panel in panels.values() for series in in_panel]
    values = [value for series in all_series for value in series.x]
    drawn = tuple(_panel(name, series, words) for name, series in panels.items())
    title = words(
        "title.claim", study=explanation.study, claim=words.get(f"claim.{claim.key}", claim.key).rstrip(".。")
    )
    return Figure(f"claim-{claim.key}", title, _axis(claim.key, explanation, values, words), drawn)


def _panel(name: str, series: list[Series], words: Texts) -> Panel:
    axis = value_axis(words.get(f"curve.{name}", name), words, _is_log(name, series))
    return Panel(axis, tuple(series))


def _target(name: str, number: int, words: Texts) -> _Target:
    if name in _TARGETS:
        target = _TARGETS[name]
        return target._replace(name=words(target.name))
    start, _, side = name.rpartition("_")
    if side in _SIDES:
        key, color = _SIDES[side]
        return _Target("loss" if start == "val_loss" else start, words(key), color)
    if re.fullmatch(r"[0-9.e+-]+", side):
        return _Target("loss", words("series.dropout", rate=side), _RATES[number % len(_RATES)])
    return _Target(name, "", COMPLETE)


def _series(curve: Curve, target: _Target) -> Series:
    color = target.color or COMPLETE
    return Series(target.name, curve.x, curve.mean, LINE, color, curve.low, curve.high, dashed=target.dashed)


def _axis(key: str, explanation: Explanation, values: list[float], words: Texts) -> Axis:
    if key == "gradients":
        return Axis(words("curve.lr"), log=True)
    if key == "zeros":
        axis = strength_axis("l1", values, words)
        return Axis(axis.title.replace("l1", words("curve.strength"), 1), axis.log, axis.off, axis.off_label)
    return strength_axis(explanation.decay, values, words)


def _is_log(name: str, series: list[Series]) -> bool:
    heights = [value for line in series for value in line.y if value == value]
    wide = bool(heights) and min(heights) > 0 and max(heights) > LOG_FROM * min(heights)
    return name not in _HEIGHTS and wide


def claim_charts(explanation: Explanation, words: Texts) -> Mapping[str, Figure]:
    """The chart of each claim that has one, by the claim's key."""
    charts = {claim.key: claim_chart(claim, explanation, words) for claim in explanation.claims}
    return {key: figure for key, figure in charts.items() if figure is not None}
