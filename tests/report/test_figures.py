"""Figures: where values stand on an axis, and that both who draw them put them there."""

import math
from pathlib import Path

import pytest
from matplotlib.image import imread
from support.drawings import traces

from wdsearch.report.figures import BARS, LINE, STAR, Axis, Figure, Heat, Line, Panel, Series, scale
from wdsearch.report.to_html import as_html
from wdsearch.report.to_image import draw


def test_off_stands_apart_at_the_left_of_a_log_axis() -> None:
    axis_scale = scale(Axis("λ", log=True, off=0.0, off_label="off"), [0.0, 0.01, 0.1, 10.0])
    places = [axis_scale.position(value) for value in (0.0, 0.01, 0.1, 10.0)]
    assert places[1:] == [-2.0, -1.0, 1.0]
    assert axis_scale.low < places[0] < -2.0  # type: ignore[operator]
    assert {text: place for place, text in axis_scale.ticks}["off"] == places[0]
    assert {"0.01", "0.1", "1", "10"} <= {text for _, text in axis_scale.ticks}


def test_an_infinite_off_stands_at_the_right() -> None:
    axis_scale = scale(Axis("clip", off=math.inf, off_label="off"), [1.0, 2.0, 3.0, math.inf])
    assert 3.0 < axis_scale.position(math.inf) < axis_scale.high  # type: ignore[operator]
    assert axis_scale.ticks[-1] == (axis_scale.position(math.inf), "off")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_what_has_no_place_is_left_out(value: float) -> None:
    assert scale(Axis("λ", log=True), [0.1, 1.0, value]).position(value) is None


def test_an_outlier_stands_at_the_edge_instead_of_hiding_the_rest() -> None:
    values = [*(1.0 + 0.01 * number for number in range(20)), 1e6]
    losses = scale(Axis("loss"), values)
    assert losses.high < 2.0
    assert losses.position(1e6) == losses.high
    assert losses.clipped
    assert scale(Axis("loss", beyond="outliers at the edge"), values).note == "outliers at the edge"
    assert scale(Axis("loss", beyond="outliers at the edge"), values, tight=False).note == ""
    assert scale(Axis("loss"), values, tight=False).high > 1e6


def test_both_who_draw_say_that_outliers_stand_at_the_edge() -> None:
    x, far = tuple(float(place) for place in range(21)), (*(1.0 + 0.01 * place for place in range(20)), 1e6)
    near = (*far[:-1], 1.2)
    axis = Axis("loss", beyond="outliers at the edge")
    panels = tuple(Panel(axis, (Series("trials", x, y),)) for y in (near, far))
    drawn = Figure("gap", "gap", Axis("λ"), panels)
    (note,) = [text for text in traces(as_html(drawn))[1]["annotations"] if text["text"]]
    assert (note["text"], note["yref"]) == ("outliers at the edge", "y2 domain")
    written = [[text.get_text() for text in axes.texts] for axes in draw(drawn).axes]
    assert written == [[], ["outliers at the edge"]]


@pytest.mark.parametrize("values", [[], [2.0], [0.0, 0.0], [math.nan], [1e-300, 1e300], [-5.0]])
@pytest.mark.parametrize("log", [False, True])
def test_every_axis_has_a_width(values: list[float], log: bool) -> None:
    axis_scale = scale(Axis("x", log=log, off=0.0, off_label="off"), values)
    assert math.isfinite(axis_scale.low)
    assert axis_scale.low < axis_scale.high


def figure() -> Figure:
    """Of every kind of series, with a value that is off, and one that is none."""
    x, y = (0.0, 0.1, 1.0, 10.0), (1.0, 0.5, 0.7, math.nan)
    series = (
        Series("points", x, y, labels=("a", "b", "c", "d")),
        Series("line", x, y, LINE, "#1b7f4d", tuple(v - 0.1 for v in y), tuple(v + 0.1 for v in y)),
        Series("star", (0.1,), (0.5,), STAR),
    )
    shaded = Series("", x, y, shade=(1.0, 2.0, 3.0, 4.0))
    panels = (Panel(Axis("loss"), series, (Line(0.9, "baseline", "#c1440e"),)), Panel(Axis("gap"), (shaded,)))
    axis = Axis("weight_decay", log=True, off=0.0, off_label="off")
    return Figure("every", "Every kind", axis, panels, (Line(1.0, "λ.1se", "#1b7f4d"),), "shade")


def test_both_draw_the_same_points_at_the_same_places(tmp_path: Path) -> None:
    data, layout = traces(as_html(figure()))
    drawn = draw(figure(), tmp_path / "every.png")
    (points,) = (trace for trace in data if trace.get("name") == "points")
    there = drawn.axes[0].collections
    finite = [(x, y) for x, y in zip(points["x"], points["y"], strict=True) if y is not None]
    assert [tuple(place) for place in there[0].get_offsets()] == finite
    assert list(drawn.axes[0].get_xlim()) == layout["xaxis"]["range"]
    assert [label.get_text() for label in drawn.axes[1].get_xticklabels()] == layout["xaxis"]["ticktext"]
    assert layout["xaxis"]["ticktext"][0] == "off"
    names = [trace["name"] for trace in data if trace["showlegend"]]
    assert names == ["points", "line", "star", "baseline", "λ.1se"], "each once"
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == names
    assert imread(tmp_path / "every.png").std() > 0.05, "something is drawn"


def test_bars_begin_at_zero() -> None:
    bars = Series("", (42.0, 40.0), (0.0, 1.0), BARS)
    figure = Figure("bars", "", Axis("share"), (Panel(Axis("", names=("lr", "dropout")), (bars,)),))
    data, layout = traces(as_html(figure))
    assert layout["xaxis"]["range"][0] == 0.0
    assert layout["yaxis"]["ticktext"] == ["lr", "dropout"]
    assert data[0]["x"] == [42.0, 40.0]
    assert draw(figure).axes[0].get_xlim()[0] == 0.0


def test_a_heat_map_leaves_out_what_is_not_there() -> None:
    heat = Panel(Axis("dropout", names=("off", "0.5")), heat=Heat(((1.0, 2.0), (3.0, math.nan))))
    figure = Figure("heat", "", Axis("λ", names=("off", "0.1")), (heat,), shading="loss")
    data, _ = traces(as_html(figure))
    assert data[0]["z"] == [[1.0, 2.0], [3.0, None]]
    assert data[0]["text"] == [["1", "2"], ["3", ""]]
    assert sorted(text.get_text() for text in draw(figure).axes[0].texts) == ["1", "2", "3"]


@pytest.mark.parametrize("x", [(), (math.nan,), (0.0,)])
def test_nearly_nothing_is_drawn_as_well(x: tuple[float, ...]) -> None:
    look = Series("a", x, x, LINE, "#1b7f4d", x, x)
    figure = Figure("none", "", Axis("λ", log=True, off=0.0, off_label="off"), (Panel(Axis("y"), (look,)),))
    assert "Plotly.newPlot" in as_html(figure)
    draw(figure)
