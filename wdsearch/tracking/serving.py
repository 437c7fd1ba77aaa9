"""Serves pages of a study on this machine, such as Optuna's dashboard, until Ctrl-C."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple

from wdsearch.errors import WdsearchError

PORT = 5000
"""Default port on which `wdsearch ui` serves the pages of records that have no server of their own."""
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


def dashboard_server(storage: str, study_id: int, port: int) -> Server:
    """Server of Optuna's dashboard over a storage's URL, which may hold a password: it goes by the environment.

    Raises DashboardError if it is not installed.

    >>> dashboard_server("sqlite:///optuna.db", study_id=1, port=8080).link
    'http://127.0.0.1:8080/dashboard/studies/1'
    """
    if find_spec("optuna_dashboard") is None:
        raise DashboardError("optuna-dashboard is not installed; install it with: pip install 'wdsearch[dashboard]'")
    link = f"http://127.0.0.1:{port}/dashboard/studies/{study_id}"
    return Server(link, port, [sys.executable, "-c", _DASHBOARD, str(port)], os.environ | {STORAGE: storage})


def serve(servers: Sequence[Server], say: Callable[[str], None]) -> None:
    """Say each page and serve them until interrupted. Raises PortError before anything is started.

    >>> serve([Server("https://mlflow.example.org", 443, [], {})], print)  # another machine serves it
    https://mlflow.example.org
    """
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
