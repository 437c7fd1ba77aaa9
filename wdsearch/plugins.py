"""Tables of entries by name that installed packages extend by entry points."""

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from importlib.metadata import EntryPoint, distributions
from itertools import chain
from typing import Any, TypeVar

T = TypeVar("T")
PREFIX = "wdsearch."
_HOMES = {"trackers": "wdsearch.tracking", "engines": "wdsearch.launch.engines"}
"""Packages that lie above those that have to know the names in their tables: `study` checks what a file names."""
_tables: "dict[str, Table[Any]]" = {}


class Table(Mapping[str, T]):
    """Built-in entries by name, followed by those that installed packages add in the group `wdsearch.<group>`.

    A package adds one in its pyproject.toml:

        [project.entry-points."wdsearch.models"]
        bottleneck = "their_package.networks:bottleneck"

    `misfit(name, entry)` is the reason for which an object is no valid entry, empty if it is one. An entry that cannot be
    imported, is not valid or has a name that is taken is left out with a warning that names its package; the others can
    still be used. Entry points are loaded when the table is first read, since their modules import wdsearch.
    """

    def __init__(self, group: str, entries: Mapping[str, T], misfit: Callable[[str, object], str]) -> None:
        self.group, self._ours, self._misfit = group, dict(entries), misfit
        _tables[group] = self

    @cached_property
    def _entries(self) -> dict[str, T]:
        entries = dict(self._ours)
        for point in _entry_points(PREFIX + self.group):
            try:
                entries |= {point.name: self._loaded(point)}
            except LookupError as problem:
                package = point.dist.name if point.dist else point.value
                text = f"{package} adds {point.name!r} to {point.group}, which is left out: {problem.args[0]}"
                warnings.warn(text, stacklevel=3)
        return entries

    def _loaded(self, point: EntryPoint) -> T:
        """Object of an entry point; raises LookupError with the reason if it is no valid entry."""
        if point.name in self._ours:
            raise LookupError("that name is taken")
        try:
            entry: T = point.load()
        except Exception as error:  # any error while a foreign module is imported
            raise LookupError(f"{point.value} cannot be imported ({type(error).__name__}: {error})") from error
        if problem := self._misfit(point.name, entry):
            raise LookupError(problem)
        return entry

    def __getitem__(self, name: str) -> T:
        # ours need no entry points: a package that is just being imported may build its entry from one of ours
        return self._ours[name] if name in self._ours else self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def table_of(group: str) -> Table[Any]:
    """Table of trackers or engines, whose package is imported when the table is first asked for.

    >>> sorted(table_of("trackers"))
    ['jsonl', 'mlflow']
    """
    importlib.import_module(_HOMES[group])
    return _tables[group]


def plugin_versions() -> dict[str, str]:
    """Versions of the packages that add entries to any table, by package.

    >>> all(isinstance(version, str) for version in plugin_versions().values())
    True
    """
    return {point.dist.name: point.dist.version for point in _entry_points() if point.dist}


@cache
def _entry_points(group: str = "") -> tuple[EntryPoint, ...]:
    """Entry points of one group or of all groups of wdsearch, by name; of duplicates the first on the path counts."""
    if group:
        return tuple(point for point in _entry_points() if point.group == group)
    points: dict[tuple[str, str], EntryPoint] = {}
    for point in chain.from_iterable(distribution.entry_points for distribution in distributions()):
        if point.group.startswith(PREFIX):
            points.setdefault((point.group, point.name), point)
    return tuple(points[key] for key in sorted(points))
