"""The study files of a folder that have a schedule, read again when they change."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wdsearch.errors import WdsearchError
from wdsearch.launch.workers import options_of
from wdsearch.study.cron import ScheduleConfig, fires_between, latest_fire, next_fire
from wdsearch.study.file import StudySource
from wdsearch.study.load import StudyConfig, load_study


class ScheduleError(WdsearchError):
    """Nothing to schedule."""


@dataclass(frozen=True)
class Entry:
    """A study file with a schedule, as it was when it was read."""

    path: Path
    config: StudyConfig

    @property
    def family(self) -> str:
        """The study's name, which its sweeps begin with."""
        return self.config.study

    @property
    def plan(self) -> ScheduleConfig:
        """Its schedule."""
        assert self.config.schedule is not None
        return self.config.schedule

    def due(self, after: float, until: float) -> list[int]:
        """Its fires after one instant up to another."""
        return fires_between(self.plan.cron, self.plan.timezone, after, until)

    def latest(self, until: float) -> int | None:
        """Its last fire up to an instant, if there was one."""
        return latest_fire(self.plan.cron, self.plan.timezone, until)

    def next(self, after: float) -> int:
        """Its first fire after an instant."""
        return next_fire(self.plan.cron, self.plan.timezone, after)


class Timetables:
    """The study files of a folder, or one, that have a schedule; read again when they change, and what is wrong with them said.

    A file that became faulty counts as it was before, so that no sweep is lost by a slip of the pen.
    """

    def __init__(self, source: Path, say: Callable[[str], None]) -> None:
        self.source, self.say = source, say
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._entries: dict[Path, Entry] = {}
        self._faults: dict[Path, str] = {}

    def entries(self) -> list[Entry]:
        """One for each family; of several files with the same name the first in the alphabet counts."""
        stamps = {path: stamp for path in study_files_in(self.source) if (stamp := _stamp(path))}
        for path in self._stamps.keys() - stamps.keys():
            self._faults.pop(path, None)
            if gone := self._entries.pop(path, None):
                self.say(f"{gone.family}: {path} is gone, and with it the schedule")
        for path in [path for path, stamp in stamps.items() if self._stamps.get(path) != stamp or path in self._faults]:
            self._read(path)
        self._stamps = stamps
        found: dict[str, Entry] = {}
        for path in sorted(self._entries):
            found.setdefault(self._entries[path].family, self._entries[path])
        return list(found.values())

    def _read(self, path: Path) -> None:
        before = self._entries.get(path)
        try:
            entry = read_entry(path)
        except Exception as error:  # faults of the file, and whatever own modules raise when they are looked at
            rest = f"it goes on as it was ({before.plan.spec})" if before else "it has no schedule until it is mended"
            if self._faults.get(path) != str(error):
                self.say(f"{path}: {rest}:\n{error}")
            self._faults[path] = str(error)
            return
        self._faults.pop(path, None)
        others = [
            one.path for one in self._entries.values() if entry and one.family == entry.family and one.path != path
        ]
        if entry is None:
            self._entries.pop(path, None)
        else:
            self._entries[path] = entry
            if others:
                self.say(f"{path}: {others[0]} has a schedule of {entry.family} already; only the first of them counts")
            else:
                self.say(f"{entry.family}: {entry.plan.spec}, from {path}")


def read_entry(path: Path) -> Entry | None:
    """A study file's schedule, None if it has none; raises StudyFileError and, for options of its engine, EngineError."""
    if StudySource.from_file(path).content.get("schedule") is None:
        return None  # without a look at the rest
    config = load_study(path)
    if config.schedule is None:
        return None
    options_of(config.schedule.on, config.schedule.options)
    return Entry(path, config)


def scheduled(source: Path) -> list[Entry]:
    """Those of a folder, or of one file, now; raises ScheduleError without any, and what is wrong with a file."""
    if not source.exists():
        raise ScheduleError(f"there is no {source}; give a study file, or a folder of study files")
    paths = study_files_in(source)
    found = [entry for path in paths if (entry := read_entry(path))]
    if not found:
        where = f"none of the {len(paths)} study files in {source}" if source.is_dir() else f"{source}: the study"
        raise ScheduleError(f"{where} has a schedule; add one, as in: schedule: {{cron: '0 2 * * 1', timezone: UTC}}")
    return found


def study_files_in(source: Path) -> list[Path]:
    """The YAML files of a folder; a file as it is."""
    if not source.is_dir():
        return [source]
    return sorted(path for path in source.iterdir() if path.suffix in (".yaml", ".yml"))


def _stamp(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return None
