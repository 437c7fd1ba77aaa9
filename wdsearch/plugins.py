"""Adds to our tables the entries that other installed packages offer by entry points."""

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, distributions
from itertools import chain
from typing import TypeVar

T = TypeVar("T")
PREFIX = "wdsearch."


def extended(table: Mapping[str, T], group: str, fits: Callable[[object], str]) -> dict[str, T]:
    """A table with the entries that installed packages add to it, after ours and in the order of their names.

    A package adds one in its pyproject.toml:

        [project.entry-points."wdsearch.models"]
        bottleneck = "their_package.networks:bottleneck"

    `fits` says why an object cannot be an entry of this table, or nothing. What cannot be loaded, does not fit, or has a name
    that is taken is left out with a warning that names its package: it keeps nobody from using the others.
    """
    entries = dict(table)
    for point in (one for one in _entry_points() if one.group == PREFIX + group):
        problem = "that name is taken" if point.name in entries else ""
        entry = None if problem else _loaded(point)
        problem = problem or (str(entry) if isinstance(entry, LookupError) else fits(entry))
        if problem:
            package = point.dist.name if point.dist else point.value
            text = f"{package} adds {point.name!r} to {PREFIX}{group}, which is left out: {problem}"
            warnings.warn(text, stacklevel=2)
        else:
            entries[point.name] = entry  # type: ignore[assignment]
    return entries


def plugin_versions() -> dict[str, str]:
    """The packages that add entries to any table, and their versions."""
    return {point.dist.name: point.dist.version for point in _entry_points() if point.dist}


@cache
def _entry_points() -> tuple[EntryPoint, ...]:
    """Entry points of all our groups by name; of two of one name in a group the first on the path counts."""
    points: dict[tuple[str, str], EntryPoint] = {}
    for point in chain.from_iterable(distribution.entry_points for distribution in distributions()):
        if point.group.startswith(PREFIX):
            points.setdefault((point.group, point.name), point)
    return tuple(points[key] for key in sorted(points))


def _loaded(point: EntryPoint) -> object:
    """The object that an entry point names; a LookupError says why there is none."""
    try:
        return point.load()
    except Exception as error:  # whatever a foreign module raises when it is imported
        return LookupError(f"{point.value} cannot be imported ({type(error).__name__}: {error})")
