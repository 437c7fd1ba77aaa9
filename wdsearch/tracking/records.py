"""Bodies of a spool's records, in the words of MLflow."""

from collections.abc import Mapping
from typing import Any

from wdsearch.tracking.spool import now_ms
from wdsearch.tracking.tracker import DESCRIPTION, measured


def start_of(params: Mapping[str, Any], tags: Mapping[str, str], dataset: Mapping[str, str]) -> dict[str, Any]:
    """The beginning of a run, or its being taken up.

    >>> start = start_of({"lr": 0.01}, {"wdsearch.kind": "trial"}, {})
    >>> start["params"], start["tags"]
    ({'lr': '0.01'}, {'wdsearch.state': 'RUNNING', 'wdsearch.kind': 'trial'})
    """
    named = {name: str(value) for name, value in params.items()}
    own = {"wdsearch.state": "RUNNING"} | _named(tags)
    return {"params": named, "tags": own, "dataset": dict(dataset), "time": now_ms()}


def end_of(
    state: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    step: int,
    diagnostics: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The end of a run; `state` is Optuna's.

    >>> end = end_of("PRUNED", {"val_loss": 0.5, "gap": float("nan")}, {}, step=9, diagnostics=None)
    >>> end["status"], end["metrics"], end["tags"]
    ('FINISHED', {'val_loss': 0.5}, {'wdsearch.state': 'PRUNED'})
    """
    return {
        "status": "FAILED" if state == "FAIL" else "FINISHED",
        "metrics": measured(metrics, diagnostics),
        "tags": {"wdsearch.state": state} | _named(tags),
        "step": step,
        "time": now_ms(),
    }


def _named(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags under the names that MLflow's page knows."""
    return {"mlflow.note.content" if name == DESCRIPTION else name: text for name, text in tags.items()}
