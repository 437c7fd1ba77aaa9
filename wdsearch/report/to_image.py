"""Draws figures into files of their own (PNG, SVG or PDF), by matplotlib: no browser is needed."""

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wdsearch.report.figures import BARS, COLORS, LINE, NOTE, STAR, Figure, Panel, Scale, Series, scale

WIDTH, PANEL, BAR = 8.0, 2.6, 0.42
"""Inches of a figure's width, and of the height of a panel and of a bar."""
LEGEND_COLUMNS = 3
LEGEND_ROW, HEAD, FOOT = 0.2, 0.42, 0.62
"""Inches of a row of the legend, above it, and below the panels."""
CHINESE = ("noto*cjk", "sourcehan", "wqy", "msyh", "simhei", "simsun", "pingfang", "heiti", "droidsansfallback")
"""Beginnings of the file names of fonts with Chinese glyphs, the better ones first."""


def draw(figure: Figure, path: Path | None = None, family: str | None = None) -> Any:
    """The matplotlib figure, written to `path` if given; `family` is a font for its texts.

    >>> from wdsearch.report.figures import Axis
    >>> line = Series("loss", x=(0.1, 1.0, 10.0), y=(0.9, 0.8, 1.1), look=LINE)
    >>> canvas = draw(Figure("path", "Loss over λ", Axis("λ", log=True), (Panel(Axis("loss"), (line,)),)))
    >>> canvas.axes[0].get_ylabel()
    'loss'
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    fonts: dict[Any, Any] = {"font.family": [family, "DejaVu Sans"]} if family else {}
    with rc_context(fonts | {"axes.unicode_minus": False}):
        canvas = Canvas(figsize=(WIDTH, _height(figure)))
        axes = canvas.subplots(len(figure.panels), 1, sharex=True, squeeze=False)[:, 0].tolist()
        x = figure.x_scale()
        for row, panel in enumerate(figure.panels):
            _draw_panel(axes[row], figure, panel, x)
            axes[row].set_xlim(x.low, x.high)
        _ticks(axes[-1].xaxis, x)
        axes[-1].set_xlabel(figure.x.title)
        for mark in figure.marks:
            if (position := x.position(mark.value)) is not None:
                for panel_axes in axes:
                    panel_axes.axvline(position, color=mark.color, linestyle=":", linewidth=1.6)
        _arrange(canvas, axes, figure)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            canvas.savefig(path, dpi=120)
    return canvas


def chinese_font() -> str | None:
    """The family of an installed font that has Chinese glyphs; None if there is none.

    >>> family = chinese_font()
    >>> family is None or isinstance(family, str)
    True
    """
    from fnmatch import fnmatch

    from matplotlib.font_manager import FontProperties, findSystemFonts, fontManager

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # fonts of one weight have no "normal" one
    installed = sorted(findSystemFonts())
    candidates = [path for start in CHINESE for path in installed if fnmatch(Path(path).name.lower(), f"{start}*")]
    for path in candidates:
        with suppress(OSError, RuntimeError):  # a file that is no font
            fontManager.addfont(path)
            return str(FontProperties(fname=path).get_name())
    return None


def _height(figure: Figure) -> float:
    rows = -(-len(_legend_names(figure)) // LEGEND_COLUMNS)
    bars = max((len(panel.y.names) for panel in figure.panels), default=0)
    body = BAR * max(bars, 3) if bars else PANEL * len(figure.panels)
    return HEAD + LEGEND_ROW * rows + body + FOOT


def _arrange(canvas: Any, axes: Sequence[Any], figure: Figure) -> None:
    """Title and legend above the panels, in inches; matplotlib's own layout would cost as much as all the rest."""
    height, names = canvas.get_figheight(), _legend_names(figure)
    rows = -(-len(names) // LEGEND_COLUMNS)
    longest = max((len(name) for panel in figure.panels for name in panel.y.names), default=0)
    left = min(0.4, max(0.11, 0.03 + 0.0105 * longest + 0.03))
    right = 0.97
    canvas.subplots_adjust(left, FOOT / height, right, 1 - (HEAD + LEGEND_ROW * rows) / height, hspace=0.08)
    canvas.text(left, 1 - 0.12 / height, figure.title, va="top", fontsize="medium")
    if names:
        canvas.legend(
            names.values(),
            names.keys(),
            loc="upper left",
            bbox_to_anchor=(left - 0.01, 1 - (HEAD - 0.1) / height),
            ncols=LEGEND_COLUMNS,
            fontsize="small",
            frameon=False,
            borderaxespad=0.0,
            labelspacing=0.25,
        )


def _legend_names(figure: Figure) -> dict[str, Any]:
    """Handles of the legend by their names, each once."""
    from matplotlib.lines import Line2D

    handles: dict[str, Any] = {}
    for panel in figure.panels:
        for index, series in enumerate(panel.series):
            look: dict[str, Any] = {"color": series.color or COLORS[index % len(COLORS)]}
            look |= {"marker": "*", "markersize": 11} if series.look == STAR else {"marker": "o", "markersize": 5}
            look["linestyle"] = ("--" if series.dashed else "-") if series.look == LINE else ""
            handles.setdefault(series.name, Line2D([], [], **look))
        for level in panel.levels:
            handles.setdefault(level.name, Line2D([], [], color=level.color, linestyle="--"))
    for mark in figure.marks:
        handles.setdefault(mark.name, Line2D([], [], color=mark.color, linestyle=":"))
    return {name: handle for name, handle in handles.items() if name}


def _draw_panel(axes: Any, figure: Figure, panel: Panel, x: Scale) -> None:
    bands = [value for series in panel.series for value in (*series.y, *series.low, *series.high)]
    y = scale(panel.y, [*bands, *(level.value for level in panel.levels)])
    colored = _heat(axes, panel, x, y) if panel.heat is not None else None
    for index, series in enumerate(panel.series):
        drawn = _draw_series(axes, series, x, y, series.color or COLORS[index % len(COLORS)])
        colored = drawn if series.shade else colored
    for level in panel.levels:
        axes.axhline(y.position(level.value), color=level.color, linestyle="--", linewidth=1.2)
    axes.set_ylim(y.low, y.high)
    axes.set_ylabel(panel.y.title)
    if y.note:
        axes.text(1.0, 1.0, y.note, transform=axes.transAxes, ha="right", va="bottom", fontsize="small", color=NOTE)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.heat is None:
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    _ticks(axes.yaxis, y)
    if colored is not None:
        axes.figure.colorbar(colored, ax=axes, label=figure.shading, pad=0.02)


def _ticks(axis: Any, scale: Scale) -> None:
    if scale.ticks:
        axis.set_ticks([position for position, _ in scale.ticks], [text for _, text in scale.ticks])


def _draw_series(axes: Any, series: Series, x: Scale, y: Scale, color: str) -> Any:
    points = list(zip(map(x.position, series.x), map(y.position, series.y), strict=True))
    drawable = [index for index, point in enumerate(points) if None not in point]
    across, up = [points[index][0] for index in drawable], [points[index][1] for index in drawable]
    if series.look == BARS:
        return axes.barh(up, across, height=0.62, color=color)
    if series.look == STAR:
        return axes.plot(across, up, "*", markersize=15, color=color, markeredgecolor="white", zorder=5)
    if series.look == LINE:
        if series.low and drawable:
            low = [_drawable_edge(y, series.low[index]) for index in drawable]
            high = [_drawable_edge(y, series.high[index]) for index in drawable]
            axes.fill_between(across, low, high, color=color, alpha=0.16, linewidth=0)
        return axes.plot(across, up, "--o" if series.dashed else "-o", color=color, markersize=4, zorder=4)
    if series.shade:
        shades = [series.shade[index] for index in drawable]
        return axes.scatter(across, up, c=shades, s=42, edgecolors="#33404d", linewidths=0.4, zorder=3)
    return axes.scatter(across, up, s=26, color=color, zorder=3)


def _drawable_edge(scale: Scale, value: float) -> float:
    position = scale.position(value)
    return math.nan if position is None else position


def _heat(axes: Any, panel: Panel, x: Scale, y: Scale) -> Any:
    import numpy as np

    assert panel.heat is not None
    values = np.array(panel.heat.values, dtype=float)
    drawn = axes.imshow(values, origin="lower", aspect="auto")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2 if np.isfinite(values).any() else 0.0
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", color="w" if value < middle else "k")
    return drawn
