"""`wdsearch ui`: MLflow's page and Optuna's dashboard on this machine, and their end."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import wdsearch
from wdsearch.tracking import serving
from wdsearch.tracking.serving import DashboardError, PortError, Server, dashboard_server, serve

STUDY = {
    "study": "served",
    "data": "digits",
    "model": {"name": "mlp", "init_args": {"hidden": [8]}},
    "space": {"weight_decay": {"low": 1e-3, "high": 1.0, "log": True}},
    "budget": {"trials": 2, "epochs": 1},
}


def free_ports() -> int:
    """A port that is free, and the next one too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def answer(url: str, seconds: float = 240.0) -> str:
    """Answer of a server, as soon as it gives one."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as page:
                return str(page.read().decode())
        except OSError:
            assert time.monotonic() < end, f"no answer from {url}"
            time.sleep(0.3)


def test_both_pages_are_served_and_end_with_ctrl_c(tmp_path: Path) -> None:
    wdsearch.run(STUDY, home=tmp_path, progress=False)
    port = free_ports()
    command = [sys.executable, "-m", "wdsearch.cli", "ui", "served", "--home", str(tmp_path), "--port", str(port)]
    process = subprocess.Popen([*command, "--dashboard"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert answer(f"http://127.0.0.1:{port}/health") == "OK"
        assert '"study_name": "served"' in answer(f"http://127.0.0.1:{port + 1}/api/studies")
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    links = said.split()
    assert links[0].startswith(f"http://127.0.0.1:{port}/#/experiments/")
    assert links[1] == f"http://127.0.0.1:{port + 1}/dashboard/studies/1"
    for server in (port, port + 1):
        with socket.socket() as trial:
            assert trial.connect_ex(("127.0.0.1", server)) != 0, "nothing listens any more"


def test_without_the_dashboard_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(DashboardError, match=r"pip install 'wdsearch\[dashboard\]'"):
        dashboard_server("sqlite:///x.db", 1, 5001)


def test_a_port_in_use_is_said_before_anything_is_started() -> None:
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} of 127.0.0.1 cannot be used: another program listens there"):
            serve([Server("here", port, ["false"], {})], said.append)
    assert said == []
