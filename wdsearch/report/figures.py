"""What a figure shows, apart from who draws it: `interactive` draws it into HTML, `pictures` into a PNG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from wdsearch.messages import shown_number

COMPLETE, PRUNED, BASELINE, BEST, CHOSEN, OTHER = "#1f5fa8", "#b9c4d0", "#c1440e", "#d98200", "#1b7f4d", "#7a5195"
COLORS = (COMPLETE, BASELINE, CHOSEN, OTHER, BEST, "#4c8fa8")
"""For series that have no colour of their own, in this order."""
NOTE = "#5b6b7b"
POINTS, LINE, BARS, STAR = "points", "line", "bars", "star"
BEYOND = 6.0
"""Interquartile ranges off the quartiles from where values stand at the edge of the axis."""
LOG_FROM = 30.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
MOST_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """One axis. The value `off` (0 or ∞) stands apart, at its end, under `off_label`; of `names` a value is the place.

    `beyond` is written above the panel where outliers stand at the edge.
    """

    title: str
    log: bool = False
    off: float | None = None
    off_label: str = ""
    names: tuple[str, ...] = ()
    beyond: str = ""


@dataclass(frozen=True)
class Series:
    """Points, a line through them with a band from `low` to `high`, horizontal bars of length x, or a star.

    `labels` say what a point is, `shade` gives each a value that its colour shows.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    look: str = POINTS
    color: str = COMPLETE
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    shade: tuple[float, ...] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A straight line across a panel, at a value of y, or across all panels, at one of x."""

    value: float
    name: str
    color: str


@dataclass(frozen=True)
class Heat:
    """A value for each pair of places: `values[y][x]`, NaN where there is none; axes of it have names."""

    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Panel:
    """One of the panels that stand above each other and share the x axis."""

    y: Axis
    series: tuple[Series, ...] = ()
    levels: tuple[Line, ...] = ()
    heat: Heat | None = None


@dataclass(frozen=True)
class Figure:
    """A figure: `name` is that of its file, `shading` says what the colours of shaded points or of a heat map mean."""

    name: str
    title: str
    x: Axis
    panels: tuple[Panel, ...]
    marks: tuple[Line, ...] = ()
    shading: str = ""

    def x_scale(self) -> "Scale":
        """The scale of the axis that all panels share."""
        found = [value for panel in self.panels for series in panel.series for value in series.x]
        bars = any(series.look == BARS for panel in self.panels for series in panel.series)
        whole = scale(self.x, [*found, *(mark.value for mark in self.marks), *([0.0] if bars else [])], tight=False)
        return replace(whole, low=0.0) if bars else whole


@dataclass(frozen=True)
class Scale:
    """Where values stand: logarithms on a log axis, what is off at its end, the outlying at the edge."""

    axis: Axis
    low: float
    high: float
    off_at: float | None = None
    clipped: bool = False
    ticks: tuple[tuple[float, str], ...] = field(default=())

    @property
    def note(self) -> str:
        """That outliers stand at the edge; empty where none do."""
        return self.axis.beyond if self.clipped else ""

    def place(self, value: float) -> float | None:
        """The place of a value; None for one that has none, as NaN, or a negative one on a log axis."""
        if self.axis.off is not None and value == self.axis.off:
            return self.off_at
        place = _plain(self.axis, value)
        return None if place is None else min(max(place, self.low), self.high)

    def text(self, value: float) -> str:
        """A value as it is shown to whom points at it."""
        if self.axis.names:
            return self.axis.names[round(value)] if 0 <= round(value) < len(self.axis.names) else ""
        return self.axis.off_label if self.axis.off is not None and value == self.axis.off else shown_number(value)


def scale(axis: Axis, values: Iterable[float], tight: bool = True) -> Scale:
    """The scale on which these values are seen; `tight` lets the outlying stand at its edge."""
    if axis.names:
        ticks = tuple((float(place), name) for place, name in enumerate(axis.names))
        return Scale(axis, -0.5, len(axis.names) - 0.5, ticks=ticks)
    given = list(values)
    places = sorted(place for value in given if value != axis.off and (place := _plain(axis, value)) is not None)
    low, high = (places[0], places[-1]) if places else (0.0, 1.0)
    inner = _without_outliers(places) if tight else (low, high)
    clipped, (low, high) = inner != (low, high), inner
    room = (high - low) * 0.05 or abs(high) * 0.1 or 0.05
    low, high = low - room, high + room
    off_at = None
    if axis.off is not None and axis.off in given and (axis.log or math.isinf(axis.off)):
        off_at = high + 3 * room if axis.off == math.inf else low - 3 * room
    elif axis.off is not None:
        off_at = _plain(axis, axis.off)
    ticks = _ticks(axis, low, high, off_at) if axis.log or axis.off is not None else ()
    ends = [low, high] if off_at is None else [low, high, off_at - room, off_at + room]
    return Scale(axis, min(ends), max(ends), off_at, clipped, ticks)


def _plain(axis: Axis, value: float) -> float | None:
    if not math.isfinite(value) or (axis.log and value <= 0):
        return None
    return math.log10(value) if axis.log else value


def _without_outliers(places: Sequence[float]) -> tuple[float, float]:
    """The range of sorted places without those far outside of their quartiles."""
    if len(places) < 8:
        return (places[0], places[-1]) if places else (0.0, 1.0)
    first, third = places[len(places) // 4], places[(3 * len(places)) // 4]
    reach = BEYOND * (third - first)
    inside = [place for place in places if first - reach <= place <= third + reach] if reach else places
    return inside[0], inside[-1]


def _ticks(axis: Axis, low: float, high: float, off_at: float | None) -> tuple[tuple[float, str], ...]:
    found = _decades(low, high) if axis.log else _round_numbers(low, high)
    ticks = [(place, text) for place, text in found if low <= place <= high]
    if off_at is not None and axis.off is not None and (axis.log or math.isinf(axis.off)):
        ticks.append((off_at, axis.off_label))
    elif off_at is not None:
        ticks = [(place, axis.off_label if place == off_at else text) for place, text in ticks]
    return tuple(sorted(ticks))


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    """Powers of ten; of a short range 2 and 5 times them as well."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = max(1, math.ceil(len(powers) / MOST_TICKS))
    return [(power + math.log10(step), f"{float(f'{step}e{power}'):g}") for power in powers[::every] for step in steps]


def _round_numbers(low: float, high: float) -> list[tuple[float, str]]:
    rough = (high - low) / (MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [(place * step, f"{place * step:.6g}") for place in range(first, math.floor(high / step) + 1)]
