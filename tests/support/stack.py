"""The stack of docker-compose.yml, started for tests with a small study and secrets of its own."""

import base64
import json
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from wdsearch.cli.app import app

ROOT = Path(__file__).parents[2]
SECRETS = ("POSTGRES_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SECRET_KEY")
STUDY = {
    "study": "composed",
    "data": "mnist1d",
    "model": {"name": "mlp", "init_args": {"hidden": [128, 128]}},
    "space": {"lr": {"low": 1e-3, "high": 1e-2, "log": True}, "weight_decay": {"timescale": [0.1, 10], "off": True}},
    "search": {"batch": 4},
    "budget": {"trials": 24, "epochs": 20},
}
TRIALS = 24
PROJECT = "wdsearchtest"


def no_engine() -> str:
    """Reason for which there is no stack to test; empty if there is one."""
    if shutil.which("docker") is None:
        return "there is no docker"
    said = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return "no Docker engine answers" if said.returncode else ""


class Stack:
    """The compose project of the test, with a small study and new secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.password = folder, secrets.token_hex(24)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "studies").mkdir()
        (folder / "studies" / "composed.yaml").write_text(yaml.safe_dump(STUDY))
        given = {name: secrets.token_hex(24) for name in SECRETS} | {"MLFLOW_PASSWORD": self.password}
        self.secrets = list(given.values())
        given |= {"WDSEARCH_STUDY": "studies/composed.yaml", "WDSEARCH_STUDIES": str(folder / "studies")}
        given |= {"MLFLOW_PORT": str(self.port), "DASHBOARD_PORT": "0", "TORCH_INDEX": ""}
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        (folder / "idle.yml").write_text(yaml.safe_dump({"services": {"scheduler": IDLE}}))

    @cached_property
    def _command(self) -> list[str]:
        one = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        files = [ROOT / "docker-compose.yml", *([] if SCHEDULES else [self.folder / "idle.yml"])]
        named = [word for file in files for word in ("--file", str(file))]
        return [*one, "--env-file", str(self.folder / ".env"), "--project-name", PROJECT, *named]

    def compose(self, *words: str) -> str:
        """Output of docker-compose, which must succeed."""
        done = subprocess.run([*self._command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, *words: str) -> None:
        self.compose("up", "--detach", "--scale", "worker=2", *words)

    def containers(self, service: str) -> list[str]:
        """Those of a service, ended or not, in the order of their numbers."""
        labels = {"project": PROJECT, "service": service}
        filters = [
            word for name, value in labels.items() for word in ("--filter", f"label=com.docker.compose.{name}={value}")
        ]
        listed = docker("ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.ID}}", *filters).splitlines()
        return [line.split()[1] for line in sorted(listed)]

    def exits(self, service: str) -> list[tuple[str, int]]:
        """Each container's state and exit code."""
        found = [
            json.loads(docker("inspect", "--format", "{{json .State}}", name)) for name in self.containers(service)
        ]
        return [(state["Status"], state["ExitCode"]) for state in found]

    def sql(self, query: str) -> list[str]:
        """Values from Optuna's database; none before its tables are made."""
        command = ["docker", "exec", self.containers("postgres")[0], "psql", "-U", "wdsearch", "-Atc", query]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()

    def finished(self) -> int:
        """Trials that are complete or pruned."""
        return sum(map(int, self.sql("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')")))

    def mlflow(self, path: str, body: object = None, password: str | None = None, host: str = "") -> Any:
        """Answer of MLflow to one who has the password, or another one."""
        login = base64.b64encode(f"admin:{self.password if password is None else password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        headers |= {"Host": host} if host else {}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/2.0/{path}", data, headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def refusal(self, **how: str) -> int:
        with pytest.raises(HTTPError) as refused:
            self.mlflow("mlflow/experiments/get-by-name?experiment_name=composed", **how)
        refused.value.close()
        return refused.value.code

    def runs(self) -> dict[str, list[tuple[str, str]]]:
        """Runs by their keys: ids and states."""
        found = self.mlflow("mlflow/experiments/get-by-name?experiment_name=composed")
        body = {"experiment_ids": [found["experiment"]["experiment_id"]], "max_results": 1000}
        named: dict[str, list[tuple[str, str]]] = {}
        for run in self.mlflow("mlflow/runs/search", body)["runs"]:
            tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
            named.setdefault(tags["wdsearch.key"], []).append((run["info"]["run_id"], run["info"]["status"]))
        return named


SCHEDULES = any(command.callback.__name__ == "schedule" for command in app.registered_commands if command.callback)
IDLE = {"entrypoint": ["sleep"], "command": ["infinity"]}
"""Substitute for the scheduler as long as there is no `wdsearch schedule`."""


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def wait(until: Callable[[], bool], limit_s: float, what: str) -> None:
    end = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < end, what
        time.sleep(2.0)
