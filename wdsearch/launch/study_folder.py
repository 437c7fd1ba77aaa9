"""Reads the study files of a folder that have a schedule, again whenever they change."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wdsearch.errors import WdsearchError
from wdsearch.study.cron import ScheduleConfig, fires_between, latest_fire, next_fire
from wdsearch.study.file import StudySource
from wdsearch.study.load import StudyConfig, load_study


class ScheduleError(WdsearchError):
    """Nothing to schedule."""


@dataclass(frozen=True)
class Entry:
    """A study file with a schedule, as it was read last."""

    path: Path
    config: StudyConfig

    @property
    def family(self) -> str:
        """The study's name, which its sweeps begin with."""
        return self.config.study

    @property
    def plan(self) -> ScheduleConfig:
        """The study's schedule."""
        assert self.config.schedule is not None
        return self.config.schedule

    def due(self, after: float, until: float) -> list[int]:
        """The due times after one instant up to another."""
        return fires_between(self.plan.cron, self.plan.timezone, after, until)

    def latest(self, until: float) -> int | None:
        """The last due time up to an instant, if there was one."""
        return latest_fire(self.plan.cron, self.plan.timezone, until)

    def next(self, after: float) -> int:
        """The first due time after an instant."""
        return next_fire(self.plan.cron, self.plan.timezone, after)


class Timetables:
    """The study files of a folder, or one file, that have a schedule; read again when they change, with reports of faults.

    A file that became faulty counts as it was before, so that no sweep is lost by a typing error.
    """

    def __init__(self, source: Path, say: Callable[[str], None]) -> None:
        self.source, self.say = source, say
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._entries: dict[Path, Entry] = {}
        self._faults: dict[Path, str] = {}

    def entries(self) -> list[Entry]:
        """The entries, one for each family; of several files with one study name the first in the alphabet counts."""
        stamps = {path: stamp for path in study_files_in(self.source) if (stamp := _stamp(path))}
        for path in self._stamps.keys() - stamps.keys():
            self._faults.pop(path, None)
            if removed := self._entries.pop(path, None):
                self.say(f"{removed.family}: {path} is gone, and with it the schedule")
        changed = [path for path, stamp in stamps.items() if self._stamps.get(path) != stamp or path in self._faults]
        for path in changed:
            self._read(path)
        self._stamps = stamps
        by_family: dict[str, Entry] = {}
        for path in sorted(self._entries):
            by_family.setdefault(self._entries[path].family, self._entries[path])
        return list(by_family.values())

    def _read(self, path: Path) -> None:
        last_sound = self._entries.get(path)
        try:
            entry = read_entry(path)
        except Exception as error:  # faults of the file, and whatever user-defined modules raise when they are imported
            consequence = "it has no schedule until it is mended"
            if last_sound:
                consequence = f"it goes on as it was ({last_sound.plan.spec})"
            if self._faults.get(path) != str(error):
                self.say(f"{path}: {consequence}:\n{error}")
            self._faults[path] = str(error)
            return
        self._faults.pop(path, None)
        if entry is None:
            self._entries.pop(path, None)
        else:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        rivals = [
            other.path for other in self._entries.values() if other.family == entry.family and other.path != entry.path
        ]
        self._entries[entry.path] = entry
        if rivals:
            self.say(
                f"{entry.path}: {rivals[0]} has a schedule of {entry.family} already; only the first of them counts"
            )
        else:
            self.say(f"{entry.family}: {entry.plan.spec}, from {entry.path}")


def read_entry(path: Path) -> Entry | None:
    """A study file with its schedule; None if it has none.

    Raises StudyFileError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "digits.yaml")
    ...     _ = path.write_text("study: digits\\nspace: {weight_decay: {low: 0.01, high: 1.0}}")
    ...     read_entry(path) is None
    True
    """
    if StudySource.from_file(path).content.get("schedule") is None:
        return None  # without checking the rest
    config = load_study(path)
    if config.schedule is None:
        return None
    return Entry(path, config)


def scheduled(source: Path) -> list[Entry]:
    """The studies with a schedule of a folder, or of one file; raises ScheduleError without any, and what `read_entry` raises."""
    if not source.exists():
        raise ScheduleError(f"there is no {source}; give a study file, or a folder of study files")
    paths = study_files_in(source)
    entries = [entry for path in paths if (entry := read_entry(path))]
    if not entries:
        where = f"none of the {len(paths)} study files in {source}" if source.is_dir() else f"{source}: the study"
        raise ScheduleError(f"{where} has a schedule; add one, as in: schedule: {{cron: '0 2 * * 1', timezone: UTC}}")
    return entries


def study_files_in(source: Path) -> list[Path]:
    """The YAML files of a folder, in order; of a file itself.

    >>> study_files_in(Path("studies/digits.yaml"))
    [PosixPath('studies/digits.yaml')]
    """
    if not source.is_dir():
        return [source]
    return sorted(path for path in source.iterdir() if path.suffix in (".yaml", ".yml"))


def _stamp(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return None
