"""The chart of each claim: its quantities along the strength that was varied, those of one kind in one panel."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from wdsearch.analysis.outcomes import Claim, Curve, Explanation
from wdsearch.report.figures import BASELINE, CHOSEN, COMPLETE, LINE, LOG_FROM, OTHER, Axis, Figure, Panel, Series
from wdsearch.report.study_charts import strength_axis, value_axis
from wdsearch.report.texts import Texts


class _Place(NamedTuple):
    """Panel of a curve, its name there, and its colour."""

    panel: str
    name: str = ""
    color: str = ""
    dashed: bool = False


_PLACES = {
    "train_loss": _Place("loss", "series.train_loss", BASELINE),
    "val_loss": _Place("loss", "series.val_loss", COMPLETE),
    "rotation": _Place("rotation", "series.rotation", COMPLETE),
    "predicted_rotation": _Place("rotation", "series.predicted_rotation", OTHER, dashed=True),
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
    """What a claim is judged by; None if nothing of it was measured."""
    panels: dict[str, list[Series]] = {}
    for number, (name, curve) in enumerate(claim.curves.items()):
        place = _place(name, number, words)
        if curve.x:
            panels.setdefault(place.panel, []).append(_series(curve, place))
    if not panels:
        return None
    values = [value for series in panels.values() for one in series for value in one.x]
    drawn = tuple(
        Panel(value_axis(words.get(f"curve.{name}", name), words, _is_log(name, series)), tuple(series))
        for name, series in panels.items()
    )
    title = words(
        "title.claim", study=explanation.study, claim=words.get(f"claim.{claim.key}", claim.key).rstrip(".。")
    )
    return Figure(f"claim-{claim.key}", title, _axis(claim.key, explanation, values, words), drawn)


def _place(name: str, number: int, words: Texts) -> _Place:
    if name in _PLACES:
        place = _PLACES[name]
        return place._replace(name=words(place.name))
    start, _, side = name.rpartition("_")
    if side in _SIDES:
        key, color = _SIDES[side]
        return _Place("loss" if start == "val_loss" else start, words(key), color)
    if re.fullmatch(r"[0-9.e+-]+", side):
        return _Place("loss", words("series.dropout", rate=side), _RATES[number % len(_RATES)])
    return _Place(name, "", COMPLETE)


def _series(curve: Curve, place: _Place) -> Series:
    color = place.color or COMPLETE
    return Series(place.name, curve.x, curve.mean, LINE, color, curve.low, curve.high, dashed=place.dashed)


def _axis(key: str, explanation: Explanation, values: list[float], words: Texts) -> Axis:
    if key == "gradients":
        return Axis(words("curve.lr"), log=True)
    if key == "zeros":
        found = strength_axis("l1", values, words)
        return Axis(found.title.replace("l1", words("curve.strength"), 1), found.log, found.off, found.off_label)
    return strength_axis(explanation.decay, values, words)


def _is_log(name: str, series: list[Series]) -> bool:
    heights = [value for one in series for value in one.y if value == value]
    wide = bool(heights) and min(heights) > 0 and max(heights) > LOG_FROM * min(heights)
    return name not in _HEIGHTS and wide


def claim_charts(explanation: Explanation, words: Texts) -> Mapping[str, Figure]:
    """The chart of each claim that has one, by the claim's key."""
    found = {claim.key: claim_chart(claim, explanation, words) for claim in explanation.claims}
    return {key: figure for key, figure in found.items() if figure is not None}
