"""Drawings of a page."""

import json
from typing import Any


def traces(html: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Data and layout of the drawing in a page."""
    start = html.index("[", html.index("Plotly.newPlot"))
    decoder = json.JSONDecoder()
    data, end = decoder.raw_decode(html[start:])
    layout, _ = decoder.raw_decode(html[start + end :].lstrip(", \n"))
    return data, layout
