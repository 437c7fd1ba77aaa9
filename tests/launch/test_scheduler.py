"""Schedules: when they are due, that every fire comes once whoever is killed, and what a sweep begins with."""

import itertools
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import optuna
import pytest
import sqlalchemy as sql
from optuna.distributions import FloatDistribution
from scheduling import BEGUN, disturbed
from sqlalchemy.exc import OperationalError
from support import postgres
from support.fabricated import SPACE, fabricate
from support.studies import STUDY as SMALL_STUDY
from typer.testing import CliRunner

from wdsearch.analysis.trend import sweeps_of
from wdsearch.cli.app import app
from wdsearch.launch import scheduler as schedule
from wdsearch.launch.emit import calendars
from wdsearch.launch.engines import LAUNCHERS, LaunchError
from wdsearch.launch.scheduler import POLL_S, Scheduler, serve_once
from wdsearch.launch.study_folder import ScheduleError, scheduled
from wdsearch.launch.sweeps import Sweeps as Sweeper
from wdsearch.launch.sweeps import sweep_of, winners
from wdsearch.launch.workers import launched, stop
from wdsearch.search.ask import ask, build_pruner
from wdsearch.search.status import study_status
from wdsearch.storage import studies as storage_module
from wdsearch.storage.attributes import CONFIG, FAMILY, FIRED, SLOT, WARM
from wdsearch.storage.home import Home
from wdsearch.storage.results import load_result, spent
from wdsearch.storage.schedule_claims import CLAIMED, FAILED, LAUNCHED, MISSED, QUEUED, SKIPPED, Fire, Fires
from wdsearch.storage.studies import StudyChangedError, identity, open_study
from wdsearch.strategies.samplers import SAMPLERS
from wdsearch.study.cron import (
    ALIASES,
    DAYS,
    MONTHS,
    MOST_FIRES,
    dated,
    fires,
    fires_between,
    latest_fire,
    next_fire,
)
from wdsearch.study.file import StudyFileError
from wdsearch.study.load import load_study
from wdsearch.study.space import distributions

SMALL = SMALL_STUDY | {"space": {key: SMALL_STUDY["space"][key] for key in ("lr", "dropout")}}  # type: ignore[index]
STUDY = """study: {study}
data: {{name: digits}}
model: {{name: mlp, init_args: {{hidden: [8]}}}}
space:
  weight_decay: {{low: 1e-4, high: 10, log: true, off: true}}
  dropout: {{low: 0.0, high: 0.5}}
budget: {{trials: 4, epochs: 3}}
search: {{batch: 2}}
schedule: {{{schedule}}}
"""


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def shown(instants: Sequence[int]) -> list[str]:
    return [datetime.fromtimestamp(one, UTC).strftime("%m-%d %H:%M") for one in instants]


def write(folder: Path, study: str = "tiny", **plan: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{study}.yaml"
    words = ", ".join(f"{key}: {value!r}" for key, value in ({"cron": "0 2 * * *"} | plan).items())
    path.write_text(STUDY.format(study=study, schedule=words))
    return path


# -- cron ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "zone", "after", "until", "expected"),
    [
        # Mondays are 1, Sundays 0 and 7: APScheduler takes 1 for Tuesday
        ("0 2 * * 1", "UTC", "2026-06-01", "2026-06-16", ["06-01 02:00", "06-08 02:00", "06-15 02:00"]),
        ("0 2 * * 7", "UTC", "2026-06-01", "2026-06-15", ["06-07 02:00", "06-14 02:00"]),
        ("0 2 * * 0", "UTC", "2026-06-01", "2026-06-15", ["06-07 02:00", "06-14 02:00"]),
        ("0 2 * * sun", "UTC", "2026-06-01", "2026-06-08", ["06-07 02:00"]),
        ("0 2 * * 5-7", "UTC", "2026-06-01", "2026-06-08", ["06-05 02:00", "06-06 02:00", "06-07 02:00"]),
        ("0 2 * * Mon-Wed", "UTC", "2026-06-01", "2026-06-08", ["06-01 02:00", "06-02 02:00", "06-03 02:00"]),
        # two restricted day fields: either; one that begins with a star: both
        ("0 0 13 * 5", "UTC", "2026-02-01", "2026-02-28", ["02-06 00:00", "02-13 00:00", "02-20 00:00", "02-27 00:00"]),
        ("0 0 14 * 5", "UTC", "2026-02-09", "2026-02-21", ["02-13 00:00", "02-14 00:00", "02-20 00:00"]),
        ("0 0 */13 * 5", "UTC", "2026-06-01", "2026-08-01", []),
        # days that not every month has, leap days, names of months, lists, ranges, steps
        ("0 0 31 * *", "UTC", "2026-01-01", "2026-06-30", ["01-31 00:00", "03-31 00:00", "05-31 00:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01", "2029-01-01", ["02-29 00:00"]),
        ("0 0 1 jan,JUL *", "UTC", "2026-01-02", "2027-01-02", ["07-01 00:00", "01-01 00:00"]),
        ("*/25 4 1 6 *", "UTC", "2026-06-01", "2026-06-02", ["06-01 04:00", "06-01 04:25", "06-01 04:50"]),
        ("10-30/10 4 1 6 *", "UTC", "2026-06-01", "2026-06-02", ["06-01 04:10", "06-01 04:20", "06-01 04:30"]),
        ("@daily", "UTC", "2026-05-31T12:00", "2026-06-02T12:00", ["06-01 00:00", "06-02 00:00"]),
        ("@weekly", "UTC", "2026-06-01", "2026-06-08", ["06-07 00:00"]),
        # 02:30 is left out on 29 March in Berlin, and comes twice on 25 October: it comes when 3 is struck, and once
        ("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24", "2026-10-27", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-29", "2026-03-30", ["03-29 01:00", "03-30 00:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-29", "2026-03-29T12:00", ["03-29 01:00"]),
        ("30 2 * * *", "America/New_York", "2026-03-07", "2026-03-10", ["03-07 07:30", "03-08 07:00", "03-09 06:30"]),
        ("30 1 * * *", "America/New_York", "2026-10-31", "2026-11-03", ["10-31 05:30", "11-01 05:30", "11-02 06:30"]),
        # every hour is every hour
        ("0 * * * *", "Europe/Berlin", "2026-03-29T00:30", "2026-03-29T03:30", ["03-29 01:00", "03-29 02:00", "03-29 03:00"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-25T02:30", ["10-25 01:00", "10-25 02:00"]),
        ("30 * * * *", "America/New_York", "2026-11-01T05:00", "2026-11-01T07:00", ["11-01 05:30", "11-01 06:30"]),
    ],
)  # fmt: skip
def test_cron_is_read_as_cron_reads_it(cron: str, zone: str, after: str, until: str, expected: list[str]) -> None:
    first, last = (at(f"{one}+00:00" if "T" in one else f"{one}T00:00+00:00") for one in (after, until))
    assert shown(fires_between(cron, zone, first - 1, last)) == expected


def minutely(cron: str, zone: str, after: float, until: float) -> list[int]:
    """The fires by what crontab(5) of Debian says, minute by minute, without cronsim."""
    minute, hour, *days = (ALIASES.get(cron) or cron).split()
    tz = ZoneInfo(zone)
    if minute.startswith("*") or hour.startswith("*"):
        steps = range(int(after) // 60 * 60 + 60, int(until) + 1, 60)
        local = [(one, datetime.fromtimestamp(one, tz)) for one in steps]
        return [
            one for one, there in local if _fits(minute, there.minute) and _fits(hour, there.hour) and _day(days, there)
        ]
    instants = set()
    day = datetime.fromtimestamp(after, tz).date() - timedelta(days=2)
    while day <= datetime.fromtimestamp(until, tz).date():
        for clock in range(1440):
            naive = datetime(day.year, day.month, day.day, clock // 60, clock % 60)
            if _fits(minute, naive.minute) and _fits(hour, naive.hour) and _day(days, naive):
                while datetime.fromtimestamp(naive.replace(tzinfo=tz).timestamp(), tz).replace(tzinfo=None) != naive:
                    naive += timedelta(minutes=1)  # it is skipped
                instants.add(int(naive.replace(tzinfo=tz).timestamp()))
        day += timedelta(days=1)
    return sorted(one for one in instants if after < one <= until)


def _fits(field: str, value: int, first: int = 0, names: Sequence[str] = ()) -> bool:
    for part in field.upper().split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        bounds = [int(end) if end.isdigit() else names.index(end) + first for end in (low, high or low) if end != "*"]
        inside = span == "*" or bounds[0] <= value <= bounds[-1]
        if inside and (value - (bounds[0] if bounds else first)) % int(step or 1) == 0:
            return True
    return False


def _day(days: Sequence[str], day: date) -> bool:
    of_month, month, of_week = days
    weekday = (day.weekday() + 1) % 7
    by_month = _fits(of_month, day.day, 1)
    by_week = _fits(of_week, weekday, 0, DAYS) or (weekday == 0 and _fits(of_week, 7, 0, DAYS))
    either = not of_month.startswith("*") and not of_week.startswith("*")
    return _fits(month, day.month, 1, MONTHS) and (by_month or by_week if either else by_month and by_week)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("spring", [True, False])
def test_random_timetables_agree_with_the_manual_minute_by_minute(zone: str, spring: bool) -> None:
    chance = random.Random(f"{zone} {spring}")
    start = at("2026-03-05T00:00+00:00" if spring else "2026-10-01T00:00+00:00")
    for _ in range(12):
        cron = " ".join(
            [
                chance.choice(["0", "30", "*/20", "15,45", "59", "5-50/15"]),
                chance.choice(["*", "2", "1-3", "2,3", "*/6", "1"]),
                chance.choice(["*", "*", "8", "29", "1-31/7", "*/2"]),
                chance.choice(["*", "*", "MAR-NOV", "3,4,10,11"]),
                chance.choice(["*", "*", "0", "7", "SUN", "1-5", "5-7"]),
            ]
        )
        if zone == "Australia/Lord_Howe" and "*" in cron.split()[1]:
            continue  # clocks go by half an hour there, and hourly jobs with it
        after = start + chance.randrange(86_400)
        until = after + 32 * 86_400
        assert fires_between(cron, zone, after, until) == minutely(cron, zone, after, until)[-MOST_FIRES:], (cron, zone)


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 * * * *", "*/20 1-3 * * 0", "0 0 29 2 *"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
def test_the_next_and_the_latest_are_those_of_the_list(cron: str, zone: str) -> None:
    chance = random.Random(cron + zone)
    for day in ("2026-03-08", "2026-03-29", "2026-10-25", "2026-11-01", "2028-02-28"):
        now = at(f"{day}T00:00+00:00") + chance.uniform(0, 86_400)
        coming = fires_between(cron, zone, now, now + 5 * 366 * 86_400 if "29 2" in cron else now + 9 * 86_400)
        assert next_fire(cron, zone, now) == coming[0]
        assert latest_fire(cron, zone, coming[0]) == coming[0], "a fire is due when it is struck"
        earlier = latest_fire(cron, zone, coming[0] - 1)
        assert earlier is not None
        assert earlier <= now
        assert next_fire(cron, zone, earlier) == coming[0], "and nothing lies between"


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("cron: 0 2 * *", "these are 4"),
        ("cron: 0 0 2 * * *", "five fields (minute, hour, day of month, month, day of week), as in '0 2 * * 1'; these are 6"),
        ("cron: '@reboot'", "five fields, or one of @yearly, @annually, @monthly"),
        ("cron: '@every 5m'", "five fields, or one of @yearly"),
        ("cron: 60 2 * * *", "another minute: cron knows none like this"),
        ("cron: 0 24 * * *", "another hour"),
        ("cron: 0 2 * * 8", "another day of week"),
        ("cron: 0 2 * * fri-sun", "another day of week"),
        ("cron: 0 2 30 2 *", "another day of month"),
        ("cron: 0 2 L * *", "numbers, * , - / as the day of month"),
        ("cron: '0 2 * * 5#2'", "numbers, * , - /, and names such as MON as the day of week"),
        ("cron: 0 2 * * monday", "and names such as MON"),
        ("cron: 5", "text (in quotes if it looks like a number)"),
        ("cron: '@daily', timezone: Europe/Berln", "as Europe/Berlin; did you mean Europe/Berlin?"),
        ("cron: '@daily', timezone: ../etc/passwd", "a name of the time zone database"),
        ("cron: '@daily', overlap: wait", "'skip' or 'queue'"),
        ("cron: '@daily', catch_up: 1", "'none', 'last' or 'all'"),
        ("cron: '@daily', workers: 0", "at least 1"),
        ("cron: '@daily', on: slrm", "schedule.on is 'slrm'; did you mean slurm?"),
        ("cron: '@daily', on: slurm, options: {tim: 1}", "schedule.options.tim is not an option of slurm; did you mean time?"),
        ("cron: '@daily', catchup: all", "schedule.catchup is not a known key; did you mean catch_up?"),
        ("timezone: UTC", "schedule.cron is missing; add `cron: ...`"),
    ],
)  # fmt: skip
def test_faults_of_a_schedule_are_told_with_their_line(tmp_path: Path, plan: str, said: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(STUDY.format(study="tiny", schedule=plan))
    with pytest.raises(StudyFileError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}:9: schedule")
    assert said in str(caught.value)


def test_a_name_leaves_room_for_the_date(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"study has 90 letters; with a schedule at most 85: a date is added"):
        load_study(write(tmp_path, "a" * 90))
    assert len(dated("a" * 85, time.time())) == 100


def test_every_engine_can_be_scheduled(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for name in LAUNCHERS:
        options = "{image: 'x/y:1'}" if name == "kubernetes" else "{}"
        path.write_text(STUDY.format(study="tiny", schedule=f"cron: '@daily', on: {name}, options: {options}"))
        plan = load_study(path).schedule
        assert plan is not None
        assert plan.on == name


# -- one scheduler -------------------------------------------------------------------------------------------------


class Sweeps:
    """Counts what is begun; at work is what a test says."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.killed: set[str] = set()
        self.busy: set[str] = set()
        self.refuses: Exception | None = None
        self.unreadable = "-"
        self.unknown = False
        self.meanwhile: Callable[[], object] = lambda: None

    def begin(self, config: object, fire: Fire) -> str:
        if self.refuses:
            raise self.refuses
        self.meanwhile()
        self.begun.append(fire.study)
        return "begun"

    def was_killed(self, config: object, study: str) -> bool:
        self._read(study)
        return study in self.killed

    def at_work(self, study: str) -> bool:
        self._read(study)
        return study in self.busy

    def _read(self, study: str) -> None:
        if self.unknown:
            raise LaunchError("squeue does not answer")
        if study.startswith(self.unreadable):
            raise KeyError(study)


class Bench:
    """A folder, a storage and a clock that a test sets, and schedulers on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.sweeps, self.lines = folder, at("2026-06-01T00:00+00:00"), Sweeps(), list[str]()
        self.engine = Home(folder / "home").open().engine
        self.fires = Fires(self.engine, "test")

    def scheduler(self) -> Scheduler:
        return Scheduler(self.folder / "studies", self.engine, self.sweeps, self.lines.append, lambda: self.now)

    def run(self, made: Scheduler, hours: float, step_s: float = 600.0) -> None:
        """Tick through some hours."""
        end = self.now + hours * 3600
        while self.now < end:
            self.now += step_s
            made.tick()

    def states(self, family: str = "tiny") -> list[tuple[str, str]]:
        return [(fire.study.removeprefix(f"{family}.202606"), fire.state) for fire in self.fires.of(family)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_scheduler_that_runs_for_the_first_time_has_no_past(bench: Bench) -> None:
    write(bench.folder / "studies")
    bench.now = at("2026-06-01T12:00+00:00")
    scheduler = bench.scheduler()
    assert scheduler.tick() == bench.now + schedule.POLL_S
    assert bench.states() == []
    bench.now = at("2026-06-02T01:59:55+00:00")
    assert scheduler.tick() == at("2026-06-02T02:00+00:00"), "it wakes up when the next is due"
    bench.run(scheduler, 48)
    assert bench.states() == [("02T0200Z", LAUNCHED), ("03T0200Z", LAUNCHED)]
    assert bench.sweeps.begun == ["tiny.20260602T0200Z", "tiny.20260603T0200Z"]
    assert any("tiny.20260602T0200Z (due 2026-06-02T02:00:00Z): launched: begun" in line for line in bench.lines)


@pytest.mark.parametrize(
    ("catch_up", "overlap", "expected"),
    [
        ("none", "skip", [MISSED, MISSED, MISSED]),
        ("last", "skip", [MISSED, MISSED, LAUNCHED]),
        ("all", "skip", [LAUNCHED, LAUNCHED, LAUNCHED]),
        ("all", "queue", [LAUNCHED, LAUNCHED, LAUNCHED]),
    ],
)
@pytest.mark.parametrize("stood_still", [True, False])
def test_missed_fires_are_made_up_for_as_the_study_says(
    bench: Bench, catch_up: str, overlap: str, expected: list[str], stood_still: bool
) -> None:
    """Missed by a scheduler that was away, and by one whose machine slept."""
    write(bench.folder / "studies", catch_up=catch_up, overlap=overlap)
    waking = bench.scheduler()
    waking.tick()
    bench.now = at("2026-06-03T12:00+00:00")
    waking = waking if stood_still else bench.scheduler()
    waking.tick()
    assert [state for _, state in bench.states()] == expected
    assert len(bench.sweeps.begun) == expected.count(LAUNCHED)
    bench.run(waking, 24)
    assert bench.states()[3:] == [("04T0200Z", LAUNCHED)]


def test_of_all_that_were_missed_each_waits_for_the_one_before(bench: Bench) -> None:
    write(bench.folder / "studies", catch_up="all", overlap="skip")
    bench.scheduler().tick()
    bench.now = at("2026-06-02T12:00+00:00")
    bench.sweeps.busy = {"tiny.20260601T0200Z"}
    scheduler = bench.scheduler()
    scheduler.tick()
    assert bench.states() == [("01T0200Z", LAUNCHED), ("02T0200Z", QUEUED)]
    bench.sweeps.busy = set()
    scheduler.tick()
    assert bench.states() == [("01T0200Z", LAUNCHED), ("02T0200Z", LAUNCHED)]


def test_of_schedulers_that_start_one_launches_again_a_last_sweep_whose_workers_were_killed(bench: Bench) -> None:
    write(bench.folder / "studies")
    sweep = "tiny.20260601T0200Z"
    bench.run(bench.scheduler(), 2.5, step_s=POLL_S)
    assert bench.sweeps.begun == [sweep]
    bench.run(bench.scheduler(), 0.5, step_s=POLL_S)
    assert bench.sweeps.begun == [sweep], "its workers live"
    bench.sweeps.killed = {sweep}
    both = [bench.scheduler(), bench.scheduler()]
    bench.sweeps.meanwhile = both[1].tick  # while the first is at it
    both[0].tick()
    assert bench.sweeps.begun == [sweep] * 2
    assert bench.states() == [("01T0200Z", LAUNCHED)]
    assert any("workers were killed: others go on" in line for line in bench.lines)
    bench.run(both[0], 0.5, step_s=POLL_S)
    assert bench.sweeps.begun == [sweep] * 2, "a scheduler looks once"


@pytest.mark.slow
def test_a_sweep_whose_workers_were_killed_goes_on_and_one_that_was_stopped_does_not(tmp_path: Path) -> None:
    path, home = write(tmp_path, options={"threads": 1}), Home(tmp_path / "home")
    path.write_text(path.read_text().replace("epochs: 3", "epochs: 400"))
    now, sweeps = at("2026-06-01T02:00:01+00:00"), Sweeper(home, None)
    scheduler = Scheduler(path, home.open().engine, sweeps, print, lambda: now)
    assert scheduler.once()
    (name,) = scheduler.latest()
    (config,) = [entry.config for entry in scheduler.timetables.entries()]
    (fire,) = scheduler.claims.of(config.study)
    assert not sweeps.was_killed(config, name), "its worker lives"
    limit = time.monotonic() + 100
    while not study_status(name, home).training:
        assert time.monotonic() < limit
        time.sleep(0.2)
    for job in launched(name, home)[0].states:
        os.kill(int(job.partition("@")[0]), signal.SIGKILL)
    while sweeps.at_work(name):
        assert time.monotonic() < limit
        time.sleep(0.2)
    assert sweeps.was_killed(config, name)
    assert sweeps.begin(config, fire) == "1 worker on local"
    assert not sweeps.was_killed(config, name)
    while not any(worker.alive for worker in study_status(name, home).workers):
        assert time.monotonic() < limit
        time.sleep(0.2)
    stop(name, home)
    assert not sweeps.at_work(name)
    assert not sweeps.was_killed(config, name)


def test_a_sweep_that_is_late_by_less_than_a_minute_is_not_missed(bench: Bench) -> None:
    write(bench.folder / "studies", catch_up="none")
    bench.scheduler().tick()
    bench.now = at("2026-06-01T02:00:30+00:00")
    bench.scheduler().tick()
    assert bench.states() == [("01T0200Z", LAUNCHED)]


@pytest.mark.parametrize(("overlap", "then"), [("skip", SKIPPED), ("queue", QUEUED)])
def test_a_sweep_that_is_due_while_the_one_before_is_at_work(bench: Bench, overlap: str, then: str) -> None:
    write(bench.folder / "studies", overlap=overlap)
    scheduler = bench.scheduler()
    bench.run(scheduler, 3)
    bench.sweeps.busy = {"tiny.20260601T0200Z"}
    bench.run(scheduler, 24)
    assert bench.states() == [("01T0200Z", LAUNCHED), ("02T0200Z", then)]
    assert any(f"{then}: tiny.20260601T0200Z is at work" in line for line in bench.lines)
    bench.sweeps.busy = set()
    bench.run(scheduler, 1)
    assert bench.states()[1] == ("02T0200Z", SKIPPED if overlap == "skip" else LAUNCHED)


def test_a_claim_whose_scheduler_died_is_taken_over_when_it_is_silent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(bench.folder / "studies")
    bench.scheduler().tick()
    fire_time = int(at("2026-06-01T02:00+00:00"))
    dead = Fires(bench.engine, "dead").enter("tiny", fire_time, CLAIMED, dated("tiny", fire_time))
    assert dead is not None
    assert bench.fires.enter("tiny", fire_time, CLAIMED, dead.study) is None, "there is one row for each fire"
    bench.now = fire_time + 5.0
    scheduler = bench.scheduler()
    scheduler.tick()
    assert bench.states() == [("01T0200Z", CLAIMED)]
    monkeypatch.setattr(schedule, "LEASE_S", 0.0)
    scheduler.tick()
    assert bench.states() == [("01T0200Z", LAUNCHED)]
    assert not Fires(bench.engine, "dead").settle(dead, FAILED), "who comes back finds that it is another's"
    assert bench.sweeps.begun == [dead.study]


def test_what_an_engine_refuses_is_tried_again_and_a_fault_is_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "LEASE_S", 0.0)
    write(bench.folder / "studies")
    scheduler = bench.scheduler()
    scheduler.tick()
    bench.sweeps.refuses = LaunchError("sbatch refuses: no such partition")
    bench.now = at("2026-06-01T02:00:01+00:00")
    scheduler.tick()
    scheduler.tick()
    assert bench.states() == [("01T0200Z", CLAIMED)]
    bench.sweeps.refuses = None
    scheduler.tick()
    assert bench.states() == [("01T0200Z", LAUNCHED)]
    bench.sweeps.refuses = LaunchError("sbatch refuses")
    bench.now += 86_400
    for _ in range(9):
        scheduler.tick()
    assert bench.states()[1] == ("02T0200Z", FAILED)
    bench.sweeps.refuses = StudyFileError([])
    bench.now += 86_400
    scheduler.tick()
    assert bench.states()[2] == ("03T0200Z", FAILED)
    bench.sweeps.refuses = None
    bench.now += 86_400
    scheduler.tick()
    assert bench.states()[3] == ("04T0200Z", LAUNCHED), "it goes on"


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_where_an_engine_does_not_say_whether_the_sweep_before_is_at_work_it_is_asked_again_and_in_the_end_not_waited_for(
    bench: Bench, overlap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "LEASE_S", 0.0)
    write(bench.folder / "studies", overlap=overlap)
    scheduler = bench.scheduler()
    bench.run(scheduler, 3)
    bench.sweeps.busy.add("tiny.20260601T0200Z")
    if overlap == "queue":
        bench.run(scheduler, 24)
        assert bench.states()[1] == ("02T0200Z", QUEUED)
        bench.sweeps.unknown = True
    else:
        bench.sweeps.unknown = True
        bench.now += 86_400
        scheduler.tick()
    for _ in range(2):
        scheduler.tick()
    assert bench.states()[1] == ("02T0200Z", CLAIMED), "neither begun nor skipped"
    assert any("squeue does not answer; it is tried again" in line for line in bench.lines)
    for _ in range(5):
        scheduler.tick()
    assert bench.states()[1] == ("02T0200Z", LAUNCHED)


def test_who_calls_while_the_storage_is_restarted_is_not_turned_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.01)
    write(bench.folder / "studies")
    scheduler, answers = (
        bench.scheduler(),
        [OperationalError("", {}, Exception("the database system is shutting down"))] * 2,
    )
    since = scheduler.claims.since

    def shut(*arguments: Any) -> float:
        if answers:
            raise answers.pop()
        return since(*arguments)

    monkeypatch.setattr(scheduler.claims, "since", shut)
    bench.now = at("2026-06-01T02:30+00:00")
    assert serve_once(scheduler) == 0
    assert bench.states() == [("01T0200Z", LAUNCHED)]
    assert sum("the storage does not answer, it is tried again" in line for line in bench.lines) == 2


def test_a_schedule_is_there_when_the_module_that_its_study_names_is_mended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(bench.folder)
    path = write(bench.folder / "studies")
    (bench.folder / "mended_later.py").write_text("def net(:\n")
    path.write_text(re.sub("model: .*", "model: {class_path: mended_later.Net}", path.read_text()))
    scheduler = bench.scheduler()
    bench.run(scheduler, 1)
    assert len([line for line in bench.lines if "it has no schedule until it is mended" in line]) == 1, bench.lines
    (bench.folder / "mended_later.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(64, 10)\n"
    )
    bench.run(scheduler, 2)
    assert bench.states() == [("01T0200Z", LAUNCHED)]


def test_a_changed_timetable_counts_from_then_on(bench: Bench) -> None:
    path = write(bench.folder / "studies")
    scheduler = bench.scheduler()
    bench.run(scheduler, 12)
    write(path.parent, cron="@hourly", catch_up="all")
    bench.run(scheduler, 2)
    assert bench.states() == [("01T0200Z", LAUNCHED), ("01T1300Z", LAUNCHED), ("01T1400Z", LAUNCHED)]


def test_a_file_that_became_faulty_goes_on_as_it_was_and_others_do_not_notice(bench: Bench) -> None:
    path = write(bench.folder / "studies")
    write(bench.folder / "studies", "other")
    (bench.folder / "studies" / "notes.yaml").write_text("study: notes\n")
    (bench.folder / "studies" / "broken.yaml").write_text("study: [\n")
    scheduler = bench.scheduler()
    scheduler.tick()
    assert any("broken.yaml: it has no schedule until it is mended:\n" in line for line in bench.lines)
    path.write_text(path.read_text().replace("digits", "digts"))
    bench.run(scheduler, 3)
    (report,) = [line for line in bench.lines if "tiny.yaml: it goes on as it was (0 2 * * * UTC)" in line]
    assert "tiny.yaml:2: data.name is 'digts'; did you mean digits?" in report
    assert bench.states() == [("01T0200Z", LAUNCHED)]
    assert bench.states("other") == [("01T0200Z", LAUNCHED)]
    path.unlink()
    bench.run(scheduler, 24)
    assert bench.states() == [("01T0200Z", LAUNCHED)]
    assert len(bench.states("other")) == 2


def test_a_sweep_that_cannot_be_read_keeps_no_other_schedule_from_its_fires(bench: Bench) -> None:
    write(bench.folder / "studies", "broken")
    write(bench.folder / "studies", "tiny")
    bench.run(bench.scheduler(), 3)
    bench.sweeps.unreadable = "broken"
    bench.run(bench.scheduler(), 24)
    assert bench.states() == [("01T0200Z", LAUNCHED), ("02T0200Z", LAUNCHED)]
    assert bench.states("broken") == [("01T0200Z", LAUNCHED), ("02T0200Z", CLAIMED)]
    (report,) = [line for line in bench.lines if "KeyError" in line]
    assert "broken: KeyError: 'broken.20260601T0200Z'; it is tried again, other schedules go on" in report


def test_two_files_of_one_name_are_one_schedule(bench: Bench) -> None:
    path = write(bench.folder / "studies")
    (path.parent / "zz.yaml").write_text(path.read_text())
    scheduler = bench.scheduler()
    bench.run(scheduler, 3)
    assert bench.sweeps.begun == ["tiny.20260601T0200Z"]
    assert any(
        "tiny.yaml has a schedule of tiny already; only the first of them counts" in line for line in bench.lines
    )


def test_a_folder_without_a_schedule_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match="there is no"):
        scheduled(tmp_path / "nowhere")
    (tmp_path / "a.yaml").write_text("study: a\n")
    with pytest.raises(
        ScheduleError, match=r"none of the 1 study files in .* has a schedule; add one, as in: schedule:"
    ):
        scheduled(tmp_path)


def test_called_by_another_scheduler_it_starts_the_latest_fire_once(bench: Bench) -> None:
    write(bench.folder / "studies")
    bench.now = at("2026-06-03T02:00:03+00:00")
    assert bench.scheduler().once()
    assert bench.states() == [("03T0200Z", LAUNCHED)], "what lies before the first call is no fire"
    assert bench.scheduler().once()
    assert bench.sweeps.begun == ["tiny.20260603T0200Z"], "a doubled cron does no harm"
    assert any("tiny.20260603T0200Z (due 2026-06-03T02:00:00Z): launched already" in line for line in bench.lines)
    bench.now = at("2026-06-06T01:59:50+00:00")
    assert bench.scheduler().once(), "a clock that is ahead by some seconds loses no fire"
    assert bench.states() == [
        ("03T0200Z", LAUNCHED), ("04T0200Z", MISSED), ("05T0200Z", MISSED), ("06T0200Z", LAUNCHED)
    ]  # fmt: skip


def test_who_calls_it_learns_that_its_sweep_could_not_be_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, cron="* * * * *")

    def refused(*_: object) -> str:
        raise StudyFileError([])

    monkeypatch.setattr(Sweeper, "begin", refused)
    done = CliRunner().invoke(app, ["schedule", str(path), "--once", "--home", str(tmp_path / "home")])
    assert done.exit_code == 1, done.output
    assert "could not be started: tiny." in done.stderr


# -- for other schedulers ------------------------------------------------------------------------------------------


def emitted(path: Path, form: str, *words: str) -> str:
    done = CliRunner().invoke(
        app, ["schedule", str(path), "--emit", form, "--home", str(path.parent / "a%b c"), *words]
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_crontab_has_the_fields_and_a_command_that_the_shell_reads(tmp_path: Path) -> None:
    path = write(tmp_path, cron="@weekly", timezone="Europe/Berlin")
    *_, zone, line = emitted(path, "crontab").splitlines()
    assert zone == "CRON_TZ=Europe/Berlin"
    fields, command = line.split(None, 5)[:5], line.split(None, 5)[5]
    assert " ".join(fields) == "0 0 * * 0"
    words = shlex.split(command.replace(r"\%", "%"))
    assert words[0] == f"WDSEARCH_HOME={tmp_path / 'a%b c'}"
    assert words[1:] == [sys.executable, "-m", "wdsearch.cli", "schedule", str(path), "--once"]


@pytest.mark.parametrize("login", ["me:#/?tiger@db/studies", "me@db/studies?password=tiger", "me@db/studies"])
def test_no_secret_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    monkeypatch.setenv("PGPASSWORD", "tiger")
    text = emitted(write(tmp_path, cron="@weekly"), "crontab", "--storage", f"postgresql://{login}")
    assert "tiger" not in text
    assert "# PGPASSWORD may be secret: set it here" in text
    assert ("# WDSEARCH_STORAGE may be secret: set it here" in text) is (login != "me@db/studies")


SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")


@SYSTEMD
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    text = emitted(write(tmp_path, catch_up="none"), "systemd")
    head, service, timer = re.split(r"^# /etc/systemd/system/", text, flags=re.M)
    assert head == ""
    paths = []
    for part in (service, timer):
        name, _, body = part.partition("\n")
        paths.append(tmp_path / name.partition(";")[0])
        paths[-1].write_text(body)
    assert [path.name for path in paths] == ["wdsearch-tiny.service", "wdsearch-tiny.timer"]
    assert "KillMode=process" in service, "else the workers would end with the command that starts them"
    assert "Persistent=false" in timer
    done = subprocess.run(["systemd-analyze", "verify", *map(str, paths)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@SYSTEMD
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize(
    "cron",
    ["0 2 * * 1", "30 4 1 */3 1-5", "0 0 13 * 5", "*/15 */6 * * 7", "0 0 29 2 *", "@daily", "5,35 8-10 */2 JAN-JUN *"],
)
def test_systemd_fires_when_we_do(cron: str, zone: str) -> None:
    base, instants = int(at("2026-03-05T00:00+00:00")), set()
    for one in calendars(cron, zone):
        command = ["systemd-analyze", "calendar", one, "--iterations=30", f"--base-time=@{base}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": os.environ["PATH"]}
        )
        times = re.findall(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$", done.stdout, re.M)
        instants |= {int(at(f"{time}+00:00")) for time in times}
    assert len(instants) >= 30
    assert sorted(instants)[:30] == list(itertools.islice(fires(cron, zone, base), 30))


def test_a_batch_script_submits_the_next_run_first(tmp_path: Path) -> None:
    """With an sbatch that writes down what it is given; a cluster is another test's."""
    path = write(tmp_path, workers=2)
    script = tmp_path / "sweep.sh"
    script.write_text(emitted(path, "sbatch"))
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sbatch", "srun", "sleep"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n')
        (tools / name).chmod(0o755)
    with (tools / "sbatch").open("a") as busy:
        busy.write(f"[ $(wc -l < {tmp_path}/calls) -gt 1 ]\n")
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "TZ": "Asia/Tokyo"}
    subprocess.run(["bash", str(script)], check=True, env=environment, timeout=200)
    refused, waited, first, second = (tmp_path / "calls").read_text().splitlines()
    assert (refused, waited) == (first, "sleep 60"), "a controller that is busy breaks no chain"
    begins = re.fullmatch(rf"sbatch --begin=(\S+) {script}", first)
    assert begins is not None, first
    assert begins[1].endswith("T11:00:00"), "02:00 UTC by the cluster's clock"
    assert second == f"srun {sys.executable} -m wdsearch.cli schedule {path} --once --here"
    (tmp_path / "calls").unlink()
    requeued = environment | {"SLURM_RESTART_COUNT": "1"}
    subprocess.run(["bash", str(script)], check=True, env=requeued, timeout=200)
    assert (tmp_path / "calls").read_text().splitlines() == [second], "the next run has been submitted"
    for line in ("#SBATCH --dependency=singleton", "#SBATCH --ntasks=2", "#SBATCH --job-name=wdsearch-tiny"):
        assert line in script.read_text()


def test_a_form_that_is_none_and_an_engine_that_is_absent_are_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    done = CliRunner().invoke(app, ["schedule", str(path), "--emit", "crontap"])
    assert (done.exit_code, done.stderr) == (
        2, "there is no form 'crontap'; did you mean crontab? known: cronjob, crontab, sbatch, systemd\n"
    )  # fmt: skip
    if "kubernetes" not in LAUNCHERS:
        done = CliRunner().invoke(app, ["schedule", str(path), "--emit", "cronjob"])
        assert (done.exit_code, done.stderr) == (2, "this wdsearch has no engine kubernetes to make a CronJob with\n")


# -- what a sweep begins with --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_the_first_slots_take_the_winners_whoever_asks(sampler: str) -> None:
    config = load_study(SMALL | {"search": {"sampler": sampler}})
    space = distributions(config)
    warm = [{"params": {"lr": 0.002 * n, "dropout": 0.1 * n}, "from": f"s, trial {n}"} for n in (1, 2, 3)]

    def asked(*parts: Sequence[int]) -> list[tuple[int, dict, str | None]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study()
            study.set_user_attr(WARM, warm)
            for slots in parts:
                ask(study, config, space, slots)
        trials = study.get_trials(deepcopy=False)
        return sorted((t.user_attrs[SLOT], t.params, t.user_attrs.get(WARM)) for t in trials)

    together = asked(range(6))
    assert [(params, origin) for _, params, origin in together[:3]] == [(one["params"], one["from"]) for one in warm]
    assert [origin for *_, origin in together[3:]] == [None, None, None]
    assert asked([0, 1], [2, 3, 4, 5]) == together, "killed in between, it asks for the rest as if nothing had happened"
    assert [one[1] for one in asked([3, 4], [0, 1, 2])][:3] == [one["params"] for one in warm]


def test_winners_are_those_of_finished_sweeps_the_latest_first_as_far_as_they_fit(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for day, trials in ((1, 40), (2, 40), (3, 40), (4, 20), (5, 40), (6, 40), (9, 40)):

        def change(number: int, result: dict, day: int = day) -> dict:
            result["metrics"]["val_loss"] -= 1.0 if number == 3 * day else 0.0
            return result

        done = fabricate(home, trials, change=change, name=f"night.{day}", stored=True)
        done.optuna_study.set_user_attr(FAMILY, "night")
        done.optuna_study.set_user_attr(FIRED, f"2026-06-0{day}T02:00:00Z")
        if trials == 20:
            done.optuna_study.set_user_attr(CONFIG, done.config | {"budget": {"trials": 40, "epochs": 40}})
    sweeps = sweeps_of("night", home.open())
    before = "2026-06-07T02:00:00Z"
    best = winners(sweeps, SPACE, before)
    assert [one["from"] for one in best] == [f"night.{day}, trial {3 * day}" for day in (6, 5, 3, 2)]
    assert best[0]["params"] == sweeps[5].get_trials()[18].params
    least = best[0]["params"]["weight_decay"]
    narrow = SPACE | {"weight_decay": FloatDistribution(1e-3, least * 0.99, log=True)}
    assert best[0] not in winners(sweeps, narrow, before)
    assert winners(sweeps, SPACE | {"l1": FloatDistribution(0, 1)}, before) == [], "what was not searched is not known"


def test_a_study_that_was_created_and_not_begun_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scheduler was killed just then."""
    monkeypatch.setattr(storage_module, "BEGINNING_DS", 1)
    config, home = load_study(SMALL), Home(tmp_path)
    begun = optuna.create_study(storage=home.open(), study_name="small", directions=["minimize"])
    begun.set_user_attr(FAMILY, "some")
    study, _ = open_study(config, home, None, build_pruner(config), "accuracy", "digest", {FIRED: "then"})
    assert study.user_attrs[FIRED] == "then"
    assert "identity" in study.user_attrs
    optuna.create_study(storage=home.open(), study_name="foreign").set_user_attr("mine", 1)
    foreign = load_study(SMALL | {"study": "foreign"})
    with pytest.raises(StudyChangedError, match="was not made by wdsearch"):
        open_study(foreign, home, None, build_pruner(foreign), "accuracy", "digest")


def test_the_schedule_is_no_part_of_a_study_and_a_sweep_has_none(tmp_path: Path) -> None:
    config = load_study(write(tmp_path))
    other = load_study(write(tmp_path, cron="@hourly", workers=3, options={"threads": 2}))
    assert identity(config, "") == identity(other, "")
    sweep = sweep_of(config, "tiny.20260601T0200Z")
    assert "schedule" not in sweep.dump()
    assert load_study(sweep.dump()).study == "tiny.20260601T0200Z"
    assert identity(sweep, "") | {"study": "tiny"} == identity(config, "")


@pytest.mark.slow
def test_sweeps_of_a_study_are_begun_searched_and_compared(tmp_path: Path) -> None:
    """All real: two calls of a scheduler for two fires, their workers, and what is said of both."""
    path, home = write(tmp_path, workers=2, overlap="queue", options={"threads": 1}), Home(tmp_path / "home")
    now = at("2026-06-01T02:00:01+00:00")
    lines: list[str] = []
    for day in range(2):
        sweeps = Sweeper(home, None)
        waking = Scheduler(path, home.open().engine, sweeps, lines.append, lambda day=day: now + 86_400 * day)  # type: ignore[misc]
        assert waking.once()
        (name,) = waking.latest()
        assert name == f"tiny.2026060{day + 1}T0200Z"
        limit = time.monotonic() + 300
        while sweeps.at_work(name):
            assert time.monotonic() < limit
            time.sleep(1.0)
    first, second = (load_result(one, home) for one in sweeps_of("tiny", home.open()))
    assert [spent(one.counts) for one in (first, second)] == [4, 4]
    assert first.best is not None
    origin = {trial.user_attrs[SLOT]: trial.user_attrs.get(WARM) for trial in second.optuna_study.get_trials()}
    assert origin[0] == f"{first.study}, trial {first.best.number}"
    warm = next(one for one in second.trials if one.number == 0)
    assert warm.result.strengths == first.best.result.strengths
    assert any("launched: 2 workers on local, first with 1 earlier winner" in line for line in lines), lines
    done = CliRunner().invoke(app, ["trend", "tiny", "--home", str(home.path)])
    assert done.exit_code == 0, done.output
    assert "tiny: 2 sweeps" in done.stdout
    assert "at least eight complete trials" in done.stdout.replace("\n", " ")


# -- two schedulers, killed ----------------------------------------------------------------------------------------

WINDOWS = {
    "Berlin, spring": ("2026-03-28T16:00+00:00", "Europe/Berlin"),
    "Berlin, autumn": ("2026-10-24T16:00+00:00", "Europe/Berlin"),
    "New York, spring": ("2026-03-07T22:00+00:00", "America/New_York"),
    "New York, autumn": ("2026-10-31T21:00+00:00", "America/New_York"),
}
CRONS = {"hourly": "0 * * * *", "nightly": "30 2 * * *", "halves": "15,45 1-3 * * *"}


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    if postgres.binaries() is None:
        pytest.skip("no PostgreSQL here")
    with postgres.running() as server:
        yield server


@pytest.mark.parametrize(
    ("window", "kind", "away"),
    [
        ("Berlin, spring", "sqlite", 0.0),
        pytest.param("Berlin, autumn", "sqlite", 9_000.0, marks=pytest.mark.slow),
        pytest.param("New York, spring", "sqlite", 0.0, marks=pytest.mark.slow),
        pytest.param("New York, autumn", "sqlite", 9_000.0, marks=pytest.mark.slow),
        ("Berlin, autumn", "postgresql", 9_000.0),
        pytest.param("Berlin, spring", "postgresql", 0.0, marks=pytest.mark.slow),
        pytest.param("New York, spring", "postgresql", 9_000.0, marks=pytest.mark.slow),
        pytest.param("New York, autumn", "postgresql", 0.0, marks=pytest.mark.slow),
    ],
)
def test_of_two_schedulers_that_are_killed_again_and_again_every_fire_comes_once(
    tmp_path: Path, request: pytest.FixtureRequest, window: str, kind: str, away: float
) -> None:
    """Three timetables over twenty hours around the change of clocks; with `away` both are away for so long now and then."""
    storage = None
    if kind == "postgresql":
        storage = request.getfixturevalue("server").create(f"fires{abs(hash((window, away))) % 10**8}")
    start, zone = WINDOWS[window]
    catch_up = {"hourly": "all", "nightly": "last", "halves": "none"}
    for name, cron in CRONS.items():
        write(tmp_path / "studies", name, cron=cron, timezone=zone, catch_up=catch_up[name], overlap="queue")
    home = tmp_path / "home"
    engine = Home(home).open(storage).engine
    first, last = at(start), at(start) + 20 * 3_600
    for entry in scheduled(tmp_path / "studies"):
        Fires(engine, "first").since(entry.family, entry.plan.spec, first)
    kills = disturbed(tmp_path / "studies", home, storage, first, last, away)
    assert kills >= 8
    with engine.begin() as database:
        begun = Counter(database.scalars(sql.select(BEGUN.c.study)))
    assert max(begun.values()) == 1, "a sweep was begun twice"
    log = (tmp_path / "schedulers.log").read_text()
    for name, cron in CRONS.items():
        entered = Fires(engine, "looks").of(name)
        expected = minutely(cron, zone, first, last)
        assert [fire.fire_time for fire in entered] == expected, log
        launched = {fire.study for fire in entered if fire.state == LAUNCHED}
        assert launched == {study for study in begun if study.startswith(name)}, log
        allowed = {LAUNCHED} if name == "hourly" or not away else {LAUNCHED, MISSED}
        assert {fire.state for fire in entered} <= allowed, log
    engine.dispose()
