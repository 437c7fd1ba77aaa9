"""Leases of trials: exact budgets among processes, dead workers' slots, living workers left alone."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from support.processes import CONTEXT

import wdsearch.storage.leases
from wdsearch.storage.leases import Leases
from wdsearch.storage.slots import BASELINE_SLOT, METADATA, Slot


def leases(folder: Path, worker_of: str = "here") -> Leases:
    """One worker's part; workers of another machine keep their lock files elsewhere."""
    engine = create_engine(f"sqlite:///{folder / 'storage.db'}", connect_args={"timeout": 60})
    METADATA.create_all(engine)
    return Leases(engine, 1, folder / worker_of)


def die(worker: Leases) -> None:
    """Effect of a process's death on its worker: no more beats, and the lock is free."""
    worker._stopped.set()
    assert worker._lock is not None
    worker._lock.close()


def claim_all(folder: Path, limit: int, found: multiprocessing.Queue) -> None:
    worker = leases(folder)
    worker.join()
    mine = [worker.claim_baseline(0)]
    while slots := worker.claim(3, limit, 0):
        mine += slots
    found.put(mine)
    worker.finish()


def hold(folder: Path, ready: multiprocessing.Event) -> None:
    worker = leases(folder)
    worker.join()
    worker.claim(4, 4, 0)
    ready.set()
    time.sleep(600)


def in_a_process(target: Callable[..., None], *arguments: object) -> multiprocessing.process.BaseProcess:
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def test_who_takes_up_its_own_work_after_an_outage_has_not_died(tmp_path: Path) -> None:
    takeovers = []
    for known in (False, True):
        first = leases(tmp_path, str(known))
        first.join()
        assert first.claim(2, 4, 0)
        die(first)
        again = leases(tmp_path, str(known))
        again.former = first.worker if known else ""
        takeovers.append({slot.takeovers for slot in again.join()})
        again.finish()
    assert takeovers == [{1}, {0}]


def test_six_processes_share_a_budget_exactly(tmp_path: Path) -> None:
    leases(tmp_path)  # makes the tables
    found = CONTEXT.Queue()
    processes = [in_a_process(claim_all, tmp_path, 50, found) for _ in range(6)]
    claims = [found.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(slot for mine in claims for slot in mine[1:]) == list(range(50))
    assert [mine[0] for mine in claims].count(True) == 1, "one has the baseline"


def test_a_killed_process_is_succeeded_by_the_next_one(tmp_path: Path) -> None:
    ready = CONTEXT.Event()
    process = in_a_process(hold, tmp_path, ready)
    assert ready.wait(30)
    living = leases(tmp_path)
    assert living.join() == []
    assert living.others_live()
    assert living.take_over(range(4), born=0) == [], "its process lives"
    process.kill()
    process.join()
    assert not living.others_live()
    heir = leases(tmp_path)
    assert [slot.slot for slot in heir.join()] == [0, 1, 2, 3]
    assert heir.worker != living.worker
    assert living.take_over(range(4), born=0) == []
    living.finish()
    heir.finish()


def test_a_stopped_process_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow, swapped out, in a debugger: on its own machine its lock file tells."""
    monkeypatch.setattr(wdsearch.storage.leases, "GRACE_S", 0.1)
    ready = CONTEXT.Event()
    process = in_a_process(hold, tmp_path, ready)
    assert ready.wait(30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    living = leases(tmp_path)
    assert living.join() == []
    time.sleep(0.3)
    assert living.take_over(range(4), born=0) == []
    process.kill()
    process.join()
    assert [slot.slot for slot in living.take_over(range(4), born=0)] == [0, 1, 2, 3]
    living.finish()


def test_a_worker_that_left_in_order_is_taken_up_with_its_clock(tmp_path: Path) -> None:
    first = leases(tmp_path)
    first.join()
    first.claim(2, 9, born=0)
    first.settle(5)
    first.claim(1, 9, born=5)
    first.tick = 7
    first.release()
    second = leases(tmp_path, "another machine")
    assert [(slot.slot, slot.born) for slot in second.join()] == [(0, 0), (1, 0), (2, 5)]
    assert (second.worker, second.tick, second.settled) == (first.worker, 7, 5)
    second.finish()
    assert leases(tmp_path).join() == [], "finished workers leave nothing"


def test_a_worker_of_another_machine_is_dead_after_a_minute_without_a_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wdsearch.storage.leases, "GRACE_S", 1.0)
    monkeypatch.setattr(wdsearch.storage.leases, "BEAT_S", 0.1)
    far, near = leases(tmp_path, "far"), leases(tmp_path)
    far.join()
    far.claim(3, 3, born=0)
    near.join()
    for _ in range(15):
        assert near.take_over([0, 1, 2], born=0) == []
        time.sleep(0.1)
    die(far)
    assert near.take_over([0, 1, 2], born=4) == [], "it may be a short pause"
    taken, waited_until = [], time.monotonic() + 60.0
    while not taken and time.monotonic() < waited_until:  # a last beat may have been on its way
        time.sleep(0.3)
        taken = near.take_over([1, 2], born=4)
    assert [(slot.slot, slot.worker, slot.born) for slot in taken] == [(1, near.worker, 4), (2, near.worker, 4)]
    assert near.take_over([1, 2], born=4) == []
    far._stopped.clear()
    far.settle(6)  # it was slow, not dead: its row comes back, and its slots are no longer its own
    assert near.others_live()
    assert [slot.slot for slot in far._slots(far.worker)] == [0]
    near.finish()
    far.finish()


def test_a_machine_of_the_same_name_and_path_is_another_one(tmp_path: Path) -> None:
    far = leases(tmp_path)
    far.join()
    far.claim(3, 3, born=0)
    (tmp_path / ".place").unlink()  # as where nothing of this study was
    (tmp_path / "here" / f"{far.worker}.lock").rename(tmp_path / "lock of the other disk")
    near = leases(tmp_path)
    assert near.join() == []
    assert near.worker != far.worker
    assert near.others_live()
    assert near.take_over([0, 1, 2], born=0) == []
    near.finish()
    far.finish()


def test_who_comes_back_to_life_while_it_is_taken_over_keeps_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, heir = leases(tmp_path), leases(tmp_path)
    slow.join()
    slow.claim(3, 3, born=0)
    heir.join()
    monkeypatch.setattr(heir, "_is_dead", lambda row: True)
    slots = Leases._slots

    def beating(worker: Leases, name: str) -> list[Slot]:
        slow._beat()
        return slots(worker, name)

    monkeypatch.setattr(Leases, "_slots", beating)
    assert heir.take_over([0, 1, 2], born=0) == []
    assert [slot.slot for slot in slow.owned()] == [0, 1, 2]
    assert (tmp_path / "here" / f"{slow.worker}.lock").exists()
    slow.finish()
    heir.finish()


def test_of_two_that_find_a_dead_worker_one_becomes_it(tmp_path: Path) -> None:
    first = leases(tmp_path)
    first.join()
    first.claim_baseline(0)
    die(first)
    found = [leases(tmp_path), leases(tmp_path)]
    assert [[slot.slot for slot in worker.join()] for worker in found] == [[BASELINE_SLOT], []]
    for worker in found:
        worker.finish()


def test_deaths_are_counted_until_the_trial_gets_older() -> None:
    slot = Slot(slot=3, worker="a", born=10)
    died = slot.inherited(tick=12, settled=11)
    assert (died.settled, died.furthest, died.takeovers) == (1, 2, 1)
    again = died.inherited(tick=12, settled=11)
    assert (again.furthest, again.takeovers) == (2, 2)
    older = again.inherited(tick=15, settled=14)
    assert (older.settled, older.furthest, older.takeovers) == (4, 5, 1)
