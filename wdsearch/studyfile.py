"""The only file that reads YAML: a study file's content with the line of every key, and faults that name them."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Location = tuple[str | int, ...]
MOST_VALUES, DEEPEST = 20_000, 20


@dataclass(frozen=True)
class Fault:
    """One fault of a study: where it was written, and what was given, what is allowed, what to do."""

    where: str
    line: int | None
    text: str

    def __str__(self) -> str:
        place = f"{self.where}:{self.line}" if self.line else self.where
        return f"{place}: {self.text}".replace("\n", "\\n")


class StudyFileError(ValueError):
    """All faults of a study at once, one line each."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults), key=lambda fault: (fault.line is None, fault.line or 0, fault.text)))
        super().__init__("\n".join(map(str, self.faults)))


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: `off` is a word, `1e-6` and `010` are numbers, and a date stays text."""


_INTEGER = "^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$"
_NUMBER = r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^([tT]rue|TRUE|[fF]alse|FALSE)$"), [*"tTfF"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_INTEGER), [*"-+0123456789"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER), [*"-+.0123456789"])


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


class StudySource:
    """A study's content, where each key of it was written, and the faults of the overrides."""

    def __init__(self, content: dict[str, Any], where: str, lines: Mapping[Location, int] | None = None) -> None:
        self.content, self.where, self.lines = content, where, dict(lines or {})
        self.overrides: dict[Location, str] = {}
        self.faults: list[Fault] = []

    @classmethod
    def from_file(cls, path: Path) -> "StudySource":
        """Read a study file; raises StudyFileError."""
        return cls.from_text(_read(path), str(path))

    @classmethod
    def from_text(cls, text: str, where: str) -> "StudySource":
        """Parse a study file's text; raises StudyFileError."""
        content, lines = _parsed(text, where)
        if not isinstance(content, dict):
            given = "empty" if content is None else "a list" if isinstance(content, list) else "a single value"
            wanted = "a study file is a mapping that begins with `study: NAME`"
            raise StudyFileError([Fault(where, 1, f"the file is {given}; {wanted}")])
        return cls(content, where, lines)

    def override(self, text: str) -> None:
        """Set one `key.path=YAML value`; what is wrong with it joins the faults."""
        where = f"--set {text}"
        path, equals, value = text.partition("=")
        keys = tuple(path.strip().split("."))
        if keys[:2] == ("space", "model"):  # the key of a searched argument has a dot itself
            keys = ("space", ".".join(keys[1:3]), *keys[3:])
        try:
            if not equals or not all(keys):
                raise StudyFileError([Fault(where, None, "an override is KEY=VALUE, as in budget.trials=8")])
            self._level(keys, where)[keys[-1]] = _parsed(value, where)[0]
        except StudyFileError as error:
            self.faults += [Fault(where, None, fault.text) for fault in error.faults]
        else:
            self.lines = {place: line for place, line in self.lines.items() if place[: len(keys)] != keys}
            self.overrides[keys] = where

    def _level(self, keys: tuple[str, ...], where: str) -> dict[str, Any]:
        """The mapping that holds the last of these keys."""
        level = self.content
        for depth, key in enumerate(keys[:-1]):
            below = level.setdefault(key, {})
            if not isinstance(below, dict):
                given = f"{'.'.join(keys[: depth + 1])} is {shown(below)}, which holds no keys; set all of it at once"
                raise StudyFileError([Fault(where, None, given)])
            level = below
        return level

    def fault(self, location: Location, text: str) -> Fault:
        """A fault at a key, or at the nearest key around it."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.overrides:
                return Fault(self.overrides[location[:length]], None, text)
            if location[:length] in self.lines:
                return Fault(self.where, self.lines[location[:length]], text)
        return Fault(self.where, 1 if self.lines else None, text)


def _parsed(text: str, where: str) -> tuple[Any, dict[Location, int]]:
    """A YAML document's value, and the line of every key."""
    loader = None
    try:
        loader = _Loader(text)
        reader = _Reader(loader, where)
        root = loader.get_single_node()
        content = reader.value(root, ()) if root is not None else None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else problem
        raise StudyFileError([Fault(where, mark and mark.line + 1, f"this is not YAML: {problem}")]) from None
    finally:
        if loader is not None:
            loader.dispose()
    if reader.faults:
        raise StudyFileError(reader.faults)
    return content, reader.lines


class _Reader:
    """Builds plain values from YAML nodes, noting lines, repeated keys and values that contain themselves."""

    def __init__(self, loader: yaml.SafeLoader, where: str) -> None:
        self.loader, self.where = loader, where
        self.lines: dict[Location, int] = {}
        self.faults: list[Fault] = []
        self._open: set[int] = set()
        self._unmerged: set[int] = set()

    def value(self, node: yaml.Node, path: Location) -> Any:
        """The value of a node at a path."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            return self._fault(node, "this value contains itself")
        if len(path) > DEEPEST or len(self.lines) > MOST_VALUES:  # aliases of aliases double at each line
            return self._fault(node, f"this is too large for a study file ({MOST_VALUES} values, {DEEPEST} deep)")
        self._open.add(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        finally:
            self._open.remove(id(node))

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):  # what PyYAML raises at `!!bool maybe`, `!!timestamp x`
            return self._fault(node, f"{shown(node.value)} is no {node.tag.rpartition(':')[2]}")

    def _list(self, node: yaml.Node, path: Location) -> list[Any]:
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Location) -> dict[str, Any]:
        if id(node) not in self._unmerged:  # `<<: *other` may be overridden: only keys written here are compared
            self._unmerged.add(id(node))
            self._compare_keys(node, path)
            self.loader.flatten_mapping(node)
        given = {}
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                key = str(key_node.value)
                self.lines[(*path, key)] = key_node.start_mark.line + 1
                given[key] = self.value(value_node, (*path, key))
        return given

    def _compare_keys(self, node: yaml.MappingNode, path: Location) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fault(key, "a key is a word, not a list or a mapping")
            elif key.value in first:
                self._fault(key, f"{as_written((*path, key.value))} is given twice, first in line {first[key.value]}")
            else:
                first[key.value] = key.start_mark.line + 1

    def _fault(self, node: yaml.Node, text: str) -> None:
        self.faults.append(Fault(self.where, node.start_mark.line + 1, text))


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X? Known: ...`, for a word that is not known."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return (f"; did you mean {close[0]}? " if close else "; ") + f"known: {', '.join(words)}"


def as_written(path: Sequence[str | int]) -> str:
    """A location as a person writes it: `space.dropout.high`, `objective.minimize[0]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def shown(value: Any) -> str:
    """A given value, shortened and on one line."""
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        problem = f"there is no such file{_files_near(path)}"
    except UnicodeDecodeError as error:
        problem = f"this is not UTF-8 text (byte {error.start})"
    except (OSError, ValueError) as error:
        problem = f"it cannot be read: {getattr(error, 'strerror', None) or error}"
    raise StudyFileError([Fault(str(path), None, problem)])


def _files_near(path: Path) -> str:
    """The study files beside a missing one whose names are nearest."""
    names = sorted(other.name for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or names[:5]
    if not near:
        return "; there are no study files in that folder"
    return f"; beside it: {', '.join(str(path.parent / name) for name in near)}"
