"""Pages of a study on this machine: MLflow's, and beside it Optuna's dashboard; both end with Ctrl-C."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from wdsearch.errors import WdsearchError
from wdsearch.tracking.mlflow_store import find_page, make_store
from wdsearch.tracking.spool import Spool, spool_paths
from wdsearch.tracking.tracker import QUIET, default_uri, experiment_link, local_uri

STORAGE = "WDSEARCH_DASHBOARD_STORAGE"
_DASHBOARD = (
    f"import os, sys, optuna_dashboard as d; d.run_server(os.environ['{STORAGE}'], '127.0.0.1', int(sys.argv[1]))"
)


class PortError(WdsearchError):
    """A port on which no server can be started."""

    exit_code = 1


class DashboardError(WdsearchError):
    """Optuna's dashboard, which is not installed."""


class Server(NamedTuple):
    """The page to be opened, and what serves it here on a port; no command if another machine does."""

    link: str
    port: int
    command: Sequence[str]
    environment: Mapping[str, str]


def mlflow_server(home: Path, study: str, port: int) -> Server:
    """What serves the page of a study's runs over a local store; of a remote MLflow the link alone."""
    uri, experiment, shown = default_uri(home), "", None
    for path in spool_paths(home, study):
        spool = Spool(path)
        known, found, view = (spool.recall(fact) for fact in ("uri", "experiment", "shown"))
        spool.close()
        if known:
            uri, experiment, shown = known, found or "", view
            break
    if not experiment and uri.startswith("http"):
        experiment, shown = find_page(uri, study)
    link = experiment_link(uri, experiment, port, shown)
    if uri == local_uri(home) and not (home / "mlflow.db").exists():
        make_store(uri)
    command, environment = ui_command(home, uri, port)
    return Server(link, port, [] if uri.startswith("http") else command, environment)


def ui_command(home: Path, uri: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment of an MLflow server on this machine over a local store."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", (home.absolute() / "artifacts").as_uri()]
    return command, os.environ | QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def dashboard_server(storage: str, study_id: int, port: int) -> Server:
    """What serves Optuna's dashboard over a storage's URL, which may hold a password: it goes by the environment.

    Raises DashboardError if it is not installed.
    """
    if find_spec("optuna_dashboard") is None:
        raise DashboardError("optuna-dashboard is not installed; install it with: pip install 'wdsearch[dashboard]'")
    link = f"http://127.0.0.1:{port}/dashboard/studies/{study_id}"
    return Server(link, port, [sys.executable, "-c", _DASHBOARD, str(port)], os.environ | {STORAGE: storage})


def serve(servers: Sequence[Server], say: Callable[[str], None]) -> None:
    """Say each page and serve them until interrupted. Raises PortError before anything is started."""
    here = [server for server in servers if server.command]
    for server in here:
        _check_port(server.port)
    for server in servers:
        say(server.link)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for server in here:
            running.append(subprocess.Popen(server.command, env=server.environment, start_new_session=True))
        for process in running:
            process.wait()
    except KeyboardInterrupt:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # a server and its own worker processes
        for process in running:
            process.wait()


def _check_port(port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            reason = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
            raise PortError(f"port {port} of 127.0.0.1 cannot be used: {reason}; choose another with --port") from None
