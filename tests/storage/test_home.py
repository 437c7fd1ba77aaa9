"""A storage or a disk that cannot be used: each with a clear error that says what to do."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from endure import Server
from sqlalchemy.exc import OperationalError
from support.processes import CONTEXT, command
from support.studies import STUDY

import wdsearch
import wdsearch.storage.database
from wdsearch.search.run import begin
from wdsearch.storage.database import is_away
from wdsearch.storage.home import Home, StorageError
from wdsearch.storage.results import load_result
from wdsearch.storage.studies import StudyChangedError
from wdsearch.study.load import load_study

SMALL = STUDY | {"budget": {"trials": 4, "epochs": 2}}


def refusal(home: Path, storage: str | None = None) -> str:
    """Output of running the study there."""
    with pytest.raises(StorageError) as caught:
        wdsearch.run(SMALL, home=home, storage=storage, progress=False)
    return str(caught.value)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("my notes, " * 1000)
    assert "choose another --storage or --home" in refusal(tmp_path)
    assert (tmp_path / "optuna.db").read_text() == "my notes, " * 1000


def test_a_database_of_a_newer_optuna_is_refused(tmp_path: Path) -> None:
    Home(tmp_path).open()
    with sqlite3.connect(tmp_path / "optuna.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    text = refusal(tmp_path)
    assert "no longer compatible with the table schema" in text
    assert "another version of Optuna" in text


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wdsearch.storage.database, "LOCKED_FOR_S", 1)
    Home(tmp_path).open()
    lock = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    text = refusal(tmp_path)
    assert "database is locked" in text
    assert "end that one, and run the same command again" in text
    lock.execute("ROLLBACK")
    lock.close()
    assert wdsearch.run(SMALL, home=tmp_path, progress=False).best is not None


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite", "a storage looks like"),
        ("notadb://x/y", "SQLAlchemy does not know this kind of database"),
        ("oracle+cx_oracle://scott:tiger@db/x", "install the driver of this database"),
        ("oracle+cx_oracle://scott:#{/?tiger@db/x", "install the driver of this database"),
        ("oracle+cx_oracle://scott@db/x?password=tiger", "install the driver of this database"),
        ("postgresql://scott:tiger@db:port/x", "a storage looks like"),
    ],
)
def test_a_url_that_is_none_says_what_one_looks_like(tmp_path: Path, url: str, hint: str) -> None:
    text = refusal(tmp_path, url)
    assert hint in text
    assert "tiger" not in text, "a password is not shown"


def test_many_may_open_a_new_storage_at_once(tmp_path: Path) -> None:
    processes = [CONTEXT.Process(target=open_storage, args=(tmp_path,)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6


def open_storage(home: Path) -> None:
    Home(home).open()


FILE = (
    "{study: tiny, data: digits, model: {name: mlp, init_args: {hidden: [8]}}, budget: {trials: 4, epochs: 3},"
    " space: {weight_decay: {low: 0.0, high: 1.0}}}"
)


def test_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(FILE)
    (tmp_path / "home").mkdir(mode=0o555)
    words = [sys.executable, "-m", "wdsearch.cli", "run", "study.yaml", "--home", "home"]
    if os.getuid() == 0:  # who may write anywhere
        rights = "-dac_override,-dac_read_search"
        words = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *words]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1, done.stderr
    assert "choose another folder with --home" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("mounting takes rights that this test does not have")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(
    ("said", "away"),
    [
        ("FATAL:  the database system is in recovery mode", True),
        ("FATAL:  the database system is not yet accepting connections", True),
        ("FATAL:  sorry, too many clients already", True),
        ("connection timeout expired", True),
        ("failed to resolve host 'postgres': [Errno -2] Name or service not known", True),
        ('FATAL:  password authentication failed for user "worker"', False),
        ('FATAL:  database "studies" does not exist', False),
    ],
)
def test_workers_wait_for_a_server_that_is_away_and_not_for_one_that_refuses_them(said: str, away: bool) -> None:
    assert is_away(OperationalError("SELECT 1", {}, Exception(said))) is away


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_the_same_command_goes_on(tmp_path: Path, small_disk: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(FILE.replace("trials: 4", "trials: 64").replace("epochs: 3", "epochs: 8"))
    uri = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    done = command("run", str(file), "--home", str(small_disk), folder=tmp_path, environment=uri)
    assert done.returncode == 1, done.stderr
    assert "the disk is full: free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    before = {
        t.number: t.values for t in load_result("tiny", Home(small_disk)).optuna_study.trials if t.state.is_finished()
    }
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = command("run", str(file), "--home", str(small_disk), folder=tmp_path, environment=uri)
    assert again.returncode == 0, again.stderr
    result = load_result("tiny", Home(small_disk))
    assert result.counts["complete"] + result.counts["pruned"] == 64
    assert {number: result.optuna_study.trials[number].values for number in before} == before


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    begin(load_study(SMALL), Home(tmp_path), progress=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command("ui", "small", "--home", str(tmp_path), "--port", str(port), folder=tmp_path)
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 cannot be used: another program listens there; choose another" in done.stderr


def test_a_changed_file_does_not_continue_another_study(tmp_path: Path) -> None:
    wdsearch.run(SMALL, home=tmp_path, progress=False)
    space = SMALL["space"] | {"dropout": {"low": 0.0, "high": 0.9}}
    with pytest.raises(StudyChangedError) as caught:
        wdsearch.run(SMALL | {"space": space, "seed": 9}, home=tmp_path, progress=False)
    assert "  seed: 3 -> 9" in str(caught.value)
    assert "  space.dropout.high: 0.6 -> 0.9" in str(caught.value)
    assert "give the changed study its own name" in str(caught.value)
    assert len(load_result("small", Home(tmp_path)).trials) == 4


@pytest.mark.slow
def test_what_an_outage_left_is_delivered_by_sync(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(FILE)
    server = Server(tmp_path)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.uri}
    here = {"folder": tmp_path, "environment": environment}
    code = (
        "import sys, wdsearch.tracking.mlflow_tracker as t; t.MlflowTracker.finish.__defaults__ = (3.0, None); "
        "from wdsearch.cli import main; main()"
    )
    run = [sys.executable, "-c", code, "run", "study.yaml", "--home", "h"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, "training does not need MLflow"
    assert "deliver them with: wdsearch sync tiny" in " ".join(done.stderr.split())
    status = command("status", "tiny", "--home", "h", **here).stdout
    assert "records have not reached MLflow yet" in " ".join(status.split())
    done = command("sync", "tiny", "--home", "h", **here)
    assert (done.returncode, "could not be delivered" in done.stderr) == (1, True), done.stderr
    server.up()
    try:
        done = command("sync", "tiny", "--home", "h", **here)
        assert done.returncode == 0, done.stderr
        assert "nothing was left" in command("sync", "tiny", "--home", "h", **here).stdout
    finally:
        server.down()
    assert "records have not reached" not in command("status", "tiny", "--home", "h", **here).stdout


def test_a_home_keeps_its_storage_open_unless_its_file_is_gone(tmp_path: Path) -> None:
    """A reader that looks again and again, as a scheduler does, opens no connection each time."""
    home = Home(tmp_path)
    first = home.open()
    assert home.open() is first
    for file in tmp_path.glob("optuna.db*"):
        file.unlink()
    assert home.open() is not first
    assert optuna.get_all_study_names(home.open()) == []
