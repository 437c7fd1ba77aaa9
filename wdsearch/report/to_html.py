"""Draws figures as HTML, by plotly in the reader's browser; the only file that imports plotly."""

from itertools import chain
from typing import Any

from wdsearch.report.figures import BARS, COLORS, LINE, NOTE, STAR, Figure, Panel, Scale, Series, scale

HEIGHT = 150
"""Pixels around the panels."""
PANEL, LOW_PANEL = 230, 165
"""Pixels of each of one or two panels, and of each of more."""
BAR = 34
RAMP = "Viridis"
INK, GRID = "#33404d", "#e6eaee"


def library() -> str:
    """The source of plotly.js, to be put once into a page.

    >>> "Plotly" in library()
    True
    """
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def as_html(figure: Figure) -> str:
    """A `<div>` that a page with `library()` draws the figure into, as wide as the column that holds it.

    >>> from wdsearch.report.figures import Axis
    >>> line = Series("loss", x=(0.1, 1.0, 10.0), y=(0.9, 0.8, 1.1), look=LINE)
    >>> html = as_html(Figure("path", "Loss over λ", Axis("λ", log=True), (Panel(Axis("loss"), (line,)),)))
    >>> 'id="figure-path"' in html
    True
    """
    import plotly.graph_objects as go

    panels, x = figure.panels, figure.x_scale()
    traces: list[Any] = []
    layout = _layout(figure, x)
    named: set[str] = set()
    for row, panel in enumerate(panels):
        y = scale(panel.y, _heights(panel))
        suffix = "" if row == 0 else str(row + 1)
        layout[f"yaxis{suffix}"] = _axis(y, panel.y.title) | {"domain": _domain(row, len(panels)), "anchor": "x"}
        layout["annotations"] += [_note(y.note, suffix)] if y.note else []
        traces += [
            trace | {"yaxis": f"y{suffix}", "xaxis": "x"} for trace in _traces(figure, panel, x, y, row == 0, named)
        ]
    drawn = go.Figure(data=traces, layout=layout)
    return html_of(drawn, f"figure-{figure.name}")


def html_of(drawn: Any, identity: str) -> str:
    """A plotly figure as a `<div>` that changes its width with the page.

    >>> from plotly.graph_objects import Figure as PlotlyFigure
    >>> 'id="empty"' in html_of(PlotlyFigure(), "empty")
    True
    """
    options = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    return str(drawn.to_html(full_html=False, include_plotlyjs=False, config=options, div_id=identity))


def _heights(panel: Panel) -> list[float]:
    bands = chain.from_iterable((*series.y, *series.low, *series.high) for series in panel.series)
    return [*bands, *(level.value for level in panel.levels)]


def _domain(row: int, rows: int) -> list[float]:
    """The share of the height that a panel takes; the first one is on top."""
    height, space = 1.0 / rows, 0.05 if rows > 1 else 0.0
    return [max(0.0, 1.0 - (row + 1) * height + space / 2), min(1.0, 1.0 - row * height - space / 2)]


def _layout(figure: Figure, x: Scale) -> dict[str, Any]:
    bars = max((len(panel.y.names) for panel in figure.panels), default=0)
    panels = len(figure.panels) * (PANEL if len(figure.panels) < 3 else LOW_PANEL)
    height = HEIGHT + (BAR * max(bars, 2) if bars else panels)
    shapes = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": position, "x1": position, "y0": 0, "y1": 1}
        | {"line": {"color": mark.color, "width": 1.6, "dash": "dot"}}
        for mark in figure.marks
        if (position := x.position(mark.value)) is not None
    ]
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 16, "b": 8},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "font": {"size": 13, "color": INK, "family": "system-ui, sans-serif"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "hovermode": "closest",
        "dragmode": False,
        "shapes": shapes,
        "annotations": [],
        "xaxis": _axis(x, figure.x.title) | {"anchor": f"y{len(figure.panels)}" if len(figure.panels) > 1 else "y"},
        "coloraxis": {"colorscale": RAMP, "colorbar": {"title": {"text": figure.shading, "side": "right"}}},
    }


def _note(text: str, suffix: str) -> dict[str, Any]:
    """A text above a panel, at its right end."""
    corner = {"xref": "x domain", "yref": f"y{suffix} domain", "x": 1, "y": 1, "xanchor": "right", "yanchor": "bottom"}
    return corner | {"text": text, "showarrow": False, "font": {"size": 11, "color": NOTE}}


def _axis(axis: Scale, title: str) -> dict[str, Any]:
    layout = {
        "title": {"text": title, "standoff": 8},
        "range": [axis.low, axis.high],
        "automargin": True,
        "zeroline": False,
        "gridcolor": GRID,
        "linecolor": "#b9c4d0",
        "ticks": "outside",
        "tickcolor": "#b9c4d0",
        "fixedrange": True,
        "tickangle": None if axis.axis.names else 0,  # names may have to lean
    }
    if axis.ticks:
        layout |= {"tickvals": [position for position, _ in axis.ticks], "ticktext": [text for _, text in axis.ticks]}
    return layout


def _traces(figure: Figure, panel: Panel, x: Scale, y: Scale, first: bool, named: set[str]) -> list[dict[str, Any]]:
    """The traces of a panel; a name stands in the legend once."""
    traces = [_heat(panel, x, y)] if panel.heat is not None else []
    for index, series in enumerate(panel.series):
        color = series.color or COLORS[index % len(COLORS)]
        if series.low:
            traces.append(_band(series, x, y, color))
        traces.append(_series(series, x, y, color) | _legend(series.name, named))
    for level in panel.levels:
        height = y.position(level.value)
        line = {"color": level.color, "width": 1.4, "dash": "dash"}
        traces.append(
            {"type": "scatter", "mode": "lines", "x": [x.low, x.high], "y": [height, height], "line": line}
            | {"hoverinfo": "skip"}
            | _legend(level.name, named)
        )
    for mark in figure.marks if first else ():
        line = {"color": mark.color, "width": 1.6, "dash": "dot"}
        traces.append(
            {"type": "scatter", "mode": "lines", "x": [None], "y": [None], "line": line} | _legend(mark.name, named)
        )
    return traces


def _legend(name: str, named: set[str]) -> dict[str, Any]:
    shown = bool(name) and name not in named
    named.add(name)
    return {"name": name, "legendgroup": name, "showlegend": shown}


def _series(series: Series, x: Scale, y: Scale, color: str) -> dict[str, Any]:
    coordinates = {"x": [x.position(value) for value in series.x], "y": [y.position(value) for value in series.y]}
    labels = series.labels or ("",) * len(series.x)
    values = zip(labels, series.x, series.y, strict=True)
    texts = [f"{label}<br>{x.text(across)}, {y.text(up)}".removeprefix("<br>") for label, across, up in values]
    hover = {"text": texts, "hovertemplate": "%{text}<extra></extra>"}
    if series.look == BARS:
        return (
            {"type": "bar", "orientation": "h", "marker": {"color": color}}
            | coordinates
            | hover
            | {"textposition": "none"}
        )
    marker: dict[str, Any] = {"color": color, "size": 8}
    if series.shade:
        marker = {"color": list(series.shade), "coloraxis": "coloraxis", "size": 11, "line": {"width": 0.5}}
    if series.look == STAR:
        marker |= {"symbol": "star", "size": 16, "line": {"color": "white", "width": 1}}
    mode = "lines+markers" if series.look == LINE else "markers"
    line = {"color": color, "width": 2.2, "dash": "dash" if series.dashed else "solid"}
    return {"type": "scatter", "mode": mode, "marker": marker, "line": line, "cliponaxis": False} | coordinates | hover


def _band(series: Series, x: Scale, y: Scale, color: str) -> dict[str, Any]:
    positions = [x.position(value) for value in series.x]
    lows = [y.position(value) for value in series.low]
    highs = [y.position(value) for value in series.high]
    rows = [row for row in zip(positions, lows, highs, strict=True) if None not in row]
    around = [position for position, _, _ in (*rows, *reversed(rows))]
    heights = [low for _, low, _ in rows] + [high for _, _, high in reversed(rows)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": around,
        "y": heights,
        "fill": "toself",
        "fillcolor": _pale(color),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": series.name,
    }


def _pale(color: str) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def _heat(panel: Panel, x: Scale, y: Scale) -> dict[str, Any]:
    assert panel.heat is not None
    rows = [[None if value != value else value for value in row] for row in panel.heat.values]
    texts = [["" if value is None else f"{value:.3g}" for value in row] for row in rows]
    return {
        "type": "heatmap",
        "x": list(range(len(x.axis.names))),
        "y": list(range(len(y.axis.names))),
        "z": rows,
        "text": texts,
        "texttemplate": "%{text}",
        "hoverinfo": "skip",
        "coloraxis": "coloraxis",
        "showscale": True,
    }
