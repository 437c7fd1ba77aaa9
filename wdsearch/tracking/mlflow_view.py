"""A study's page in MLflow's UI: a saved view of which λ, how large the gap, and in which state every trial ended.

MLflow keeps such views in tags of the experiment, in a format that it does not document (read from 3.17 in a browser).
"""

import base64
import json
import zlib
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from wdsearch.groups import split_key
from wdsearch.regularizers import regularizer_of
from wdsearch.study.schema import StudyConfig
from wdsearch.tracking.spool import VIEW

COLUMN, LETTER, AROUND = 92, 8, 24
"""Pixels: the least width of the table's columns, and what a letter of a heading takes, and the space around it."""
LOSSES = "wdsearch-losses"
"""Key of the view of the ten best's losses."""


def saved_views(config: StudyConfig, metric: str, time_ms: int) -> dict[str, str]:
    """Each view by its key, as MLflow keeps it: a table of trials by the objective, with charts.

    MLflow shows all runs in all charts of a view, or the first ten of the table in all: hence two views.

    >>> from wdsearch.study.load import load_study
    >>> views = saved_views(load_study("studies/mnist1d.yaml"), "accuracy", time_ms=0)
    >>> {key: json.loads(view)["name"] for key, view in views.items()}
    {'wdsearch': 'mnist1d: λ and gap', 'wdsearch-losses': 'mnist1d: losses of the ten best'}
    """
    table = _table(config, metric)
    views = {
        VIEW: (f"{config.study}: λ and gap", {"runsHiddenMode": "SHOW_ALL"}, _over_strengths(config)),
        LOSSES: (f"{config.study}: losses of the ten best", {"runsHiddenMode": "FIRST_10_RUNS"}, _over_epochs(metric)),
    }
    return {
        key: _packed(name, table | shown | _charts(config.study, name, charts), time_ms)
        for key, (name, shown, charts) in views.items()
    }


def _packed(name: str, state: dict[str, Any], time_ms: int) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": time_ms, "updatedAt": time_ms, "state": f"deflate;{packed}"})


def _table(config: StudyConfig, metric: str) -> dict[str, Any]:
    goals = config.objective.goals
    keys = [key for key, dimension in config.dimensions.items() if dimension.form != "fixed"]
    decays = [key for key in keys if split_key(key)[0] == "weight_decay"]
    later = [f"val_{metric}"] if metric else []
    columns = [
        *(f"params.`{key}`" for key in decays),
        *(f"metrics.`{name}`" for name in dict.fromkeys([*goals, "val_loss", "gap"])),
        "tags.`wdsearch.state`",
        *(f"params.`{key}`" for key in keys if key not in decays),
        *(f"metrics.`{name}`" for name in dict.fromkeys([*later, "train_loss", "epochs"]) if name not in goals),
    ]
    return {
        "searchFilter": "tags.`wdsearch.kind` != 'study'",
        "orderByKey": f"metrics.`{goals[0]}`",
        "orderByAsc": config.objective.directions[0] == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {column: _width(column) for column in columns},
    }


def _width(column: str) -> int:
    return max(COLUMN, LETTER * len(column.split("`")[1]) + AROUND)


def _charts(study: str, view: str, charts: list[dict[str, Any]]) -> dict[str, Any]:
    section = _identity(study, view)
    shown = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    common = {"metricSectionId": section, "deleted": False, "isGenerated": False, "runsCountToCompare": 1000}
    return {
        "compareRunSections": [
            {"uuid": section, "name": view} | shown,
            # MLflow fills it with a chart for each metric: closed
            {"uuid": _identity(study, view, "rest"), "name": "Model metrics"}
            | shown
            | {"display": False, "isGenerated": True},
        ],
        "compareRunCharts": [
            common | {"uuid": _identity(study, view, str(index))} | chart for index, chart in enumerate(charts)
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": False,
        "groupBy": None,
    }


def _over_strengths(config: StudyConfig) -> list[dict[str, Any]]:
    """Gap and objective over λ, all searched keys side by side, λ and dropout together."""
    searched = {key: dimension for key, dimension in config.dimensions.items() if dimension.form != "fixed"}
    strengths = [key for key in searched if regularizer_of(key)]
    goal = config.objective.goals[0]
    decay = next((key for key in strengths if split_key(key)[0] == "weight_decay"), next(iter(strengths), None))
    other = next((key for key in strengths if split_key(key)[0] == "dropout" and key != decay), None)
    charts: list[dict[str, Any]] = []
    if decay:
        axis = _logarithm(config, decay)
        charts.append(
            {"type": "SCATTER", "displayName": f"gap over {axis['key']}", "xaxis": axis, "yaxis": _metric("gap")}
        )
        charts.append(
            {"type": "SCATTER", "displayName": f"{goal} over {axis['key']}", "xaxis": axis, "yaxis": _metric(goal)}
        )
    parallel = {
        "selectedParams": [_logarithm(config, key)["key"] for key in searched],
        "selectedMetrics": [goal, "gap"],
    }
    parallel["selectedMetrics"] = list(dict.fromkeys([goal, "gap"]))
    charts.append(
        {"type": "PARALLEL", "displayName": f"all searched keys, gap and {goal}", "showAllRuns": True} | parallel
    )
    if decay and other:
        axes = {"xaxis": _logarithm(config, decay), "yaxis": {"key": other, "type": "PARAM"}, "zaxis": _metric(goal)}
        charts.append({"type": "CONTOUR", "displayName": f"{goal} over {decay} and {other}"} | axes)
    return charts


def _over_epochs(metric: str) -> list[dict[str, Any]]:
    """Training and validation together, solid and dashed; their gap."""
    quantities = ["loss", *([metric] if metric else [])]
    charts = [_line(f"{q}: validation (solid) and training", [f"{q}/val", f"{q}/train"]) for q in quantities]
    return [*charts, _line("gap: validation − training loss", ["loss/gap"])]


def _line(name: str, keys: list[str]) -> dict[str, Any]:
    return {
        "type": "LINE",
        "displayName": name,
        "metricKey": keys[0],
        "selectedMetricKeys": keys,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        "ignoreOutliers": False,
    }


def _metric(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}


def _logarithm(config: StudyConfig, key: str) -> dict[str, str]:
    """A key's axis; MLflow's are linear, so what is searched in logarithms is drawn by its logarithm."""
    dimension = config.dimensions[key]
    return {"key": f"log10_{key}" if dimension.log or dimension.timescale else key, "type": "PARAM"}


def _identity(*parts: str) -> str:
    """An identifier, the same each time."""
    return str(uuid5(NAMESPACE_URL, " ".join(["wdsearch", *parts])))
