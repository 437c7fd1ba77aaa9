"""Figures as data, independent of who draws them: `to_html` draws them into a page, `to_image` into a PNG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from wdsearch.messages import shown_number

COMPLETE, PRUNED, BASELINE, BEST, CHOSEN, OTHER = "#1f5fa8", "#b9c4d0", "#c1440e", "#d98200", "#1b7f4d", "#7a5195"
COLORS = (COMPLETE, BASELINE, CHOSEN, OTHER, BEST, "#4c8fa8")
"""Colours of series that have none of their own, in this order."""
NOTE = "#5b6b7b"
POINTS, LINE, BARS, STAR = "points", "line", "bars", "star"
BEYOND = 6.0
"""Interquartile ranges off the quartiles from where values stand at the edge of the axis."""
LOG_FROM = 30.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
MOST_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """One axis. The value `off` (0 or ∞) stands apart, at its end, under `off_label`; of `names` a value is the index.

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

    `labels` describe the points, `shade` gives each a value that its colour shows.
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
    """A value for each pair of categories: `values[y][x]`, NaN where there is none; both axes have names."""

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
    """A figure: `name` is that of its file, `shading` names the quantity that colours of points or of a heat map show."""

    name: str
    title: str
    x: Axis
    panels: tuple[Panel, ...]
    marks: tuple[Line, ...] = ()
    shading: str = ""

    def x_scale(self) -> "Scale":
        """The scale of the axis that all panels share."""
        values = [value for panel in self.panels for series in panel.series for value in series.x]
        bars = any(series.look == BARS for panel in self.panels for series in panel.series)
        full = scale(self.x, [*values, *(mark.value for mark in self.marks), *([0.0] if bars else [])], tight=False)
        return replace(full, low=0.0) if bars else full


@dataclass(frozen=True)
class Scale:
    """Positions of values on an axis: logarithms on a log axis, the value `off` at its end, outliers at the edge."""

    axis: Axis
    low: float
    high: float
    off_at: float | None = None
    clipped: bool = False
    ticks: tuple[tuple[float, str], ...] = field(default=())

    @property
    def note(self) -> str:
        """The note that outliers stand at the edge; empty where none do."""
        return self.axis.beyond if self.clipped else ""

    def position(self, value: float) -> float | None:
        """Position of a value along the axis; None for one that has none, as NaN, or a negative one on a log axis.

        >>> scale(Axis("λ", log=True), [0.1, 1.0, 100.0]).position(10.0)
        1.0
        """
        if self.axis.off is not None and value == self.axis.off:
            return self.off_at
        position = _coordinate(self.axis, value)
        return None if position is None else min(max(position, self.low), self.high)

    def text(self, value: float) -> str:
        """A value as the label of a point shows it."""
        if self.axis.names:
            return self.axis.names[round(value)] if 0 <= round(value) < len(self.axis.names) else ""
        return self.axis.off_label if self.axis.off is not None and value == self.axis.off else shown_number(value)


def scale(axis: Axis, values: Iterable[float], tight: bool = True) -> Scale:
    """The scale on which these values are drawn; `tight` moves outliers to its edge.

    >>> axis = Axis("λ", log=True, off=0.0, off_label="off")
    >>> [text for _, text in scale(axis, [0.0, 0.1, 1.0, 10.0]).ticks]
    ['off', '0.1', '0.2', '0.5', '1', '2', '5', '10']
    """
    if axis.names:
        ticks = tuple((float(position), name) for position, name in enumerate(axis.names))
        return Scale(axis, -0.5, len(axis.names) - 0.5, ticks=ticks)
    numbers = list(values)
    positions = sorted(
        position for value in numbers if value != axis.off and (position := _coordinate(axis, value)) is not None
    )
    low, high = (positions[0], positions[-1]) if positions else (0.0, 1.0)
    inner = _without_outliers(positions) if tight else (low, high)
    clipped, (low, high) = inner != (low, high), inner
    room = (high - low) * 0.05 or abs(high) * 0.1 or 0.05
    low, high = low - room, high + room
    off_at = None
    if axis.off is not None and axis.off in numbers and (axis.log or math.isinf(axis.off)):
        off_at = high + 3 * room if axis.off == math.inf else low - 3 * room
    elif axis.off is not None:
        off_at = _coordinate(axis, axis.off)
    ticks = _ticks(axis, low, high, off_at) if axis.log or axis.off is not None else ()
    ends = [low, high] if off_at is None else [low, high, off_at - room, off_at + room]
    return Scale(axis, min(ends), max(ends), off_at, clipped, ticks)


def _coordinate(axis: Axis, value: float) -> float | None:
    if not math.isfinite(value) or (axis.log and value <= 0):
        return None
    return math.log10(value) if axis.log else value


def _without_outliers(positions: Sequence[float]) -> tuple[float, float]:
    """The range of sorted positions without those far outside of their quartiles."""
    if len(positions) < 8:
        return (positions[0], positions[-1]) if positions else (0.0, 1.0)
    first, third = positions[len(positions) // 4], positions[(3 * len(positions)) // 4]
    reach = BEYOND * (third - first)
    inside = [position for position in positions if first - reach <= position <= third + reach] if reach else positions
    return inside[0], inside[-1]


def _ticks(axis: Axis, low: float, high: float, off_at: float | None) -> tuple[tuple[float, str], ...]:
    candidates = _decades(low, high) if axis.log else _round_numbers(low, high)
    ticks = [(position, text) for position, text in candidates if low <= position <= high]
    if off_at is not None and axis.off is not None and (axis.log or math.isinf(axis.off)):
        ticks.append((off_at, axis.off_label))
    elif off_at is not None:
        ticks = [(position, axis.off_label if position == off_at else text) for position, text in ticks]
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
    return [(multiple * step, f"{multiple * step:.6g}") for multiple in range(first, math.floor(high / step) + 1)]
