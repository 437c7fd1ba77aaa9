"""docker-compose.yml: what it says, and, where a Docker engine answers, all of it at work."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.stack import ROOT, SECRETS, TRIALS, Stack, docker, no_engine, wait

TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
SERVERS = ("postgres", "mlflow", "dashboard")


def environment(service: str) -> dict[str, str]:
    return dict(SERVICES[service].get("environment", {}))


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def test_it_is_a_valid_compose_file() -> None:
    from compose_spec import PyCompose

    filled = re.sub(r"\$\{\w+:?([-?])([^}]*)\}", lambda found: found[2] if found[1] == "-" else "given", TEXT)
    PyCompose.from_yaml(
        yaml.safe_dump(yaml.safe_load(filled))
    ).validate()  # merged: it refuses keys that it does not know
    assert not {"name", "version"} & yaml.safe_load(TEXT).keys(), "docker-compose 1.29, or today's, does not want them"


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_published_is_published_on_this_machine_alone(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))
    assert "network_mode" not in SERVICES[service]
    assert "privileged" not in SERVICES[service]


@pytest.mark.parametrize("service", SERVICES)
def test_secrets_come_from_outside_and_none_has_a_default(service: str) -> None:
    given = {name: value for name, value in environment(service).items() if re.search("PASSWORD|SECRET", name)}
    for value in given.values():
        name = value[2:].partition(":")[0]
        assert name in SECRETS
        assert value == f"${{{name}:?{name} is not set, see .env.example}}"
    elsewhere = {key: value for key, value in SERVICES[service].items() if key != "environment"}
    assert not any(name in str(elsewhere) for name in SECRETS), "a command line can be read by everyone"
    assert not re.search(r"://\w+:[^/]*@", str(SERVICES[service])), "a URL may be shown"


def test_no_secret_can_get_into_the_image_or_into_git() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in ignored if line and line[0] != "#") == "*"
    assert not any(line.startswith("!.env") or line == "!." for line in ignored)
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    assert not re.search("PASSWORD|SECRET|TOKEN", (ROOT / "Dockerfile").read_text())
    example = (ROOT / ".env.example").read_text()
    assert all(line.startswith("#") for line in example.splitlines() if line), "an example that works would be kept"


def test_every_variable_is_explained_where_it_is_set() -> None:
    example = (ROOT / ".env.example").read_text()
    names = set(re.findall(r"\$\{(\w+)", TEXT))
    assert names == set(SECRETS) | set(re.findall(r"^#(\w+)=", example, re.MULTILINE))
    for name, default in re.findall(r"\$\{(\w+):?-([^}]*)\}", TEXT):
        assert f"\n#{name}={default}\n" in example
    assert all(re.search(rf"^# {name} ", example, re.MULTILINE) for name in SECRETS)


@pytest.mark.parametrize("service", SERVERS)
def test_a_server_has_a_minute_to_become_healthy(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert seconds(check["start_period"]) >= 60
    assert seconds(check["interval"]) * check["retries"] >= 60


def test_the_dashboard_alone_is_left_out_unless_asked_for() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "dashboard": ["dashboard"]
    }


def test_what_the_image_is_made_of_is_pinned() -> None:
    assert set(re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)) == {
        "python:3.11-slim-bookworm"
    }
    pinned = (ROOT / "constraints.txt").read_text()
    assert all(f"\n{name}==" in pinned for name in ("psycopg", "psycopg-binary", "Flask-WTF", "WTForms", "torch"))
    assert all(":" in service["image"] for service in SERVICES.values() if "image" in service)


# -- the stack itself ------------------------------------------------------------------------------------------

NO_ENGINE = no_engine()
needs_engine = pytest.mark.skipif(bool(NO_ENGINE), reason=NO_ENGINE)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Built, and ended with all that it wrote; its image stays, for the next time."""
    made = Stack(tmp_path_factory.mktemp("stack"))
    made.compose("build")
    try:
        yield made
    finally:
        made.compose("--profile", "dashboard", "down", "--volumes", "--timeout", "5")


@needs_engine
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_study_is_searched_exactly_though_workers_are_killed_and_the_stack_is_taken_down(stack: Stack) -> None:
    stack.up()
    wait(lambda: stack.finished() >= 4, 600, "no trial has ended")
    first, second = stack.containers("worker")
    docker(
        "exec", first, "sh", "-c", "kill -KILL $(cat /proc/1/task/1/children)"
    )  # as when memory is short: it comes back
    wait(lambda: docker("inspect", "--format", "{{.RestartCount}}", first).strip() == "1", 60, "it was not restarted")
    docker("rm", "--force", second)
    assert stack.finished() < TRIALS, "they were killed while the study ran"
    stack.up("--no-recreate")  # another container in its place
    assert second not in stack.containers("worker")
    wait(lambda: all(state == "exited" for state, _ in stack.exits("worker")), 900, "the workers do not end")
    assert stack.exits("worker") == [("exited", 0)] * 2
    assert stack.exits("scheduler") == [("running", 0)]

    assert stack.finished() == TRIALS
    assert stack.sql("SELECT count(*) FROM trials WHERE state IN ('RUNNING', 'WAITING')") == ["0"]
    runs = stack.runs()
    assert runs.keys() == {"study", "baseline"} | {f"trial-{number}" for number in range(TRIALS)}
    assert all([state for _, state in found] == ["FINISHED"] for found in runs.values())
    listed = stack.mlflow(f"mlflow/artifacts/list?run_id={runs['study'][0][0]}&path=report")
    assert "report/report.html" in {file["path"] for file in listed["files"]}, "it went through the server"
    best = stack.mlflow("mlflow/registered-models/alias?name=composed&alias=best")
    assert best["model_version"]["status"] == "READY"

    ended = "SELECT number, state, datetime_complete FROM trials ORDER BY number"
    before = stack.sql(ended)
    stack.compose("down")
    stack.up()
    wait(lambda: all(state == "exited" for state, _ in stack.exits("worker")), 300, "the workers do not end")
    assert stack.exits("worker") == [("exited", 0)] * 2
    assert stack.sql(ended) == before, "nothing was run again"
    assert stack.runs() == runs
    assert "weight_decay" in stack.compose("run", "--rm", "worker", "best", "composed")


@needs_engine
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_who_has_no_password_sees_nothing_of_mlflow(stack: Stack) -> None:
    stack.up()
    assert stack.refusal(password="") == 401
    assert stack.refusal(password="password1234") == 401
    assert stack.refusal(host="evil.example.org") == 403
    for service in SERVICES:
        for name in stack.containers(service):
            ports = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Ports}}", name))
            assert all(bound["HostIp"] == "127.0.0.1" for bindings in ports.values() for bound in bindings or [])


@needs_engine
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_secret_is_in_the_image_or_on_a_command_line(stack: Stack) -> None:
    stack.up()
    image = docker("inspect", "--format", "{{.Image}}", stack.containers("mlflow")[0]).strip()
    assert docker("inspect", "--format", "{{.Config.User}}", image).strip() == "wdsearch"
    made = docker("history", "--no-trunc", image) + docker("inspect", image)
    for service in ("postgres", "mlflow", "scheduler"):
        made += docker("exec", stack.containers(service)[0], "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "mlflow server" in made
    assert not any(secret in made for secret in stack.secrets)


@needs_engine
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_dashboard_shows_the_study_when_it_is_asked_for(stack: Stack) -> None:
    stack.compose("--profile", "dashboard", "up", "--detach", "--no-recreate", "--scale", "worker=2")
    (name,) = stack.containers("dashboard")
    healthy = lambda: docker("inspect", "--format", "{{.State.Health.Status}}", name).strip() == "healthy"  # noqa: E731
    wait(healthy, 180, "the dashboard does not answer")
    where = docker("port", name, "8080").strip()
    assert where.startswith("127.0.0.1:")
    with urllib.request.urlopen(f"http://{where}/api/studies", timeout=30) as answer:
        assert [study["study_name"] for study in json.load(answer)["study_summaries"]] == ["composed"]


@needs_engine
@pytest.mark.slow
def test_nothing_starts_without_secrets(tmp_path: Path) -> None:
    one = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    (tmp_path / ".env").write_text("")
    command = [*one, "--env-file", str(tmp_path / ".env"), "--file", str(ROOT / "docker-compose.yml"), "up"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert re.search("(POSTGRES|MLFLOW)_[A-Z_]+ is not set, see .env.example", refused.stderr)
