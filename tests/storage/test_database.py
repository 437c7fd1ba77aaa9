"""Waiting for a server, and for who makes the tables at the same time."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sql
from sqlalchemy.exc import OperationalError

from wdsearch.storage import database
from wdsearch.storage.database import connected, open_database, patiently, retry

AWAY = OperationalError("SELECT 1", {}, Exception("connection refused"))


class Server:
    """Raises its errors in turn, and answers then."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_what_may_pass_is_tried_again_and_the_pause_hears_why() -> None:
    first, second = KeyError("a"), KeyError("b")
    heard: list[Exception] = []
    assert retry(Server(first, second), lambda error: isinstance(error, KeyError), 60.0, heard.append) == "answer"
    assert heard == [first, second]


def test_what_does_not_pass_is_raised_at_once() -> None:
    heard: list[Exception] = []
    with pytest.raises(ValueError, match="wrong"):
        retry(Server(ValueError("wrong")), lambda error: isinstance(error, KeyError), 60.0, heard.append)
    assert not heard


def test_the_last_error_is_raised_when_time_is_up() -> None:
    with pytest.raises(KeyError, match="a"):
        retry(Server(KeyError("a"), KeyError("b")), lambda error: True, 0.0, lambda error: None)


def test_a_server_that_is_away_is_waited_for_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "AWAY_EVERY_S", 0.0)
    heard: list[str] = []
    assert patiently(Server(AWAY, AWAY), heard.append, 60.0) == "answer"
    assert heard == ["the storage does not answer: waiting for it"] * 2
    with pytest.raises(OperationalError, match="refused"):
        patiently(Server(AWAY), heard.append, 0.0)


def _opened(path: Path) -> int:
    storage = open_database(f"sqlite:///{path}")
    return len(sql.inspect(storage.engine).get_table_names())


def test_several_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        counts = list(pool.map(_opened, [tmp_path / "a.db"] * 4))
    with connected(f"sqlite:///{tmp_path / 'a.db'}") as one:
        assert counts == [len(sql.inspect(one).get_table_names())] * 4


def test_a_first_call_that_takes_long_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.5])
    monkeypatch.setattr(database.time, "monotonic", lambda: next(clock))
    assert retry(Server(KeyError("a"), KeyError("b")), lambda error: True, 1.0, lambda error: None) == "answer"
