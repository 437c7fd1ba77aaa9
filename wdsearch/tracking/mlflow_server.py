"""Serves MLflow's page of a study on this machine."""

import os
import sys
from pathlib import Path

from wdsearch.tracking.mlflow_address import QUIET, default_uri, experiment_link, local_uri
from wdsearch.tracking.mlflow_store import find_page, make_store
from wdsearch.tracking.serving import Server
from wdsearch.tracking.spool import Spool, spool_paths


def mlflow_server(home: Path, study: str, port: int) -> Server:
    """Server of the page of a study's runs over a local store; of a remote MLflow the link alone."""
    uri, experiment, shown = default_uri(home), "", None
    for path in spool_paths(home, study):
        spool = Spool(path)
        known, experiment_id, view = (spool.recall(fact) for fact in ("uri", "experiment", "shown"))
        spool.close()
        if known:
            uri, experiment, shown = known, experiment_id or "", view
            break
    if not experiment and uri.startswith("http"):
        experiment, shown = find_page(uri, study)
    link = experiment_link(uri, experiment, port, shown)
    if uri == local_uri(home) and not (home / "mlflow.db").exists():
        make_store(uri)
    command, environment = ui_command(home, uri, port)
    return Server(link, port, [] if uri.startswith("http") else command, environment)


def ui_command(home: Path, uri: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment of an MLflow server on this machine over a local store.

    >>> command, environment = ui_command(Path("/srv"), "sqlite:////srv/mlflow.db", 5000)
    >>> command[1:4], environment["MLFLOW_DISABLE_TELEMETRY"]
    (['-m', 'mlflow', 'server'], 'true')
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", (home.absolute() / "artifacts").as_uri()]
    return command, os.environ | QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
