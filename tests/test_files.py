"""Locks end with the process that holds them; a file that is replaced is the old one or the new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wdsearch.files import hold, hold_if_free, is_locked, locked, replacing

HOLD = """
import os, sys, time
from pathlib import Path
from wdsearch.files import hold
lock = hold(Path(sys.argv[1]))
if sys.argv[2:] and os.fork() == 0:
    time.sleep(2)
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


def _holder(path: Path, *words: str) -> subprocess.Popen[bytes]:
    """A process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_lock_is_seen_by_others_and_ends_with_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    process = _holder(path)
    try:
        assert is_locked(path)
        assert hold_if_free(path) is None
    finally:
        _end(process)
    assert not is_locked(path)
    lock = hold_if_free(path)
    assert lock is not None
    assert is_locked(path)
    lock.close()
    assert not is_locked(path)


def test_a_forked_child_holds_it_until_it_ends(tmp_path: Path) -> None:
    """Whose rows a loader's processes read, their folder is not swept away while one of them lives."""
    path = tmp_path / "a.lock"
    _end(_holder(path, "fork"))
    assert is_locked(path)
    hold(path).close()  # waits for the child
    assert not is_locked(path)


def test_a_look_makes_no_file(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "none.lock")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_what_cannot_be_opened_counts_as_held(tmp_path: Path) -> None:
    (tmp_path / "a.lock").touch(mode=0o000)
    assert is_locked(tmp_path / "a.lock")


def test_a_locks_file_keeps_what_it_holds_and_may_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("text")
    with hold(tmp_path / "new"):
        (tmp_path / "new").rename(tmp_path / "lock")
        assert is_locked(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")
    assert (tmp_path / "lock").read_text() == "text"


def test_one_at_a_time_enters(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.lock"
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.txt"
    for text in ("first", "second"):
        with replacing(path) as new:
            new.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def _write_half(path: Path) -> None:
    with replacing(path) as new:
        new.write_text("half of")
        raise OSError("full")


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"):
        _write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
