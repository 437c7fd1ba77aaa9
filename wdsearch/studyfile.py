"""The only file that reads YAML: a study file's content with the line of every key, and faults that name them."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """One fault of a study: where it was written, and what was given, what is allowed, what to do."""

    where: str
    line: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.where}:{self.line}: {self.text}" if self.line else f"{self.where}: {self.text}"


class StudyFileError(Exception):
    """All faults of a study at once, one line each."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults), key=lambda fault: (fault.line is None, fault.line or 0, fault.text)))
        super().__init__("\n".join(map(str, self.faults)))


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: `off` is a word, `1e-6` a number, and a date stays text."""


_NUMBER = r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("int", "null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^([tT]rue|TRUE|[fF]alse|FALSE)$"), [*"tTfF"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER), [*"-+.0123456789"])


class StudySource:
    """A study's content and where each key of it was written."""

    def __init__(self, content: dict[str, Any], where: str, lines: Mapping[Location, int] | None = None) -> None:
        self.content, self.where, self.lines = content, where, dict(lines or {})
        self.overrides: dict[Location, str] = {}

    @classmethod
    def from_file(cls, path: Path) -> "StudySource":
        """Read a study file; raises StudyFileError."""
        return cls.from_text(_read(path), str(path))

    @classmethod
    def from_text(cls, text: str, where: str) -> "StudySource":
        """Parse a study file's text; raises StudyFileError."""
        loader = None
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            reader = _Reader(loader, where)
            content = reader.value(root, ()) if root is not None else None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            line = mark.line + 1 if mark else None
            raise StudyFileError([Fault(where, line, f"this is not YAML: {problem}")]) from None
        finally:
            if loader is not None:
                loader.dispose()
        if not isinstance(content, dict):
            given = "empty" if content is None else f"a {_kind(content)}"
            raise StudyFileError(
                [Fault(where, 1, f"the file is {given}; a study file is a mapping that begins with `study: NAME`")]
            )
        if reader.faults:
            raise StudyFileError(reader.faults)
        return cls(content, where, reader.lines)

    def override(self, text: str) -> None:
        """Set one `key.path=YAML value`; raises StudyFileError."""
        where = f"--set {text}"
        path, equals, value = text.partition("=")
        keys = tuple(path.strip().split("."))
        if not equals or not all(keys):
            raise StudyFileError([Fault(where, None, "an override is KEY=VALUE, as in budget.trials=8")])
        parsed = StudySource.from_text(f"value: {value}", where).content["value"]
        level = self.content
        if keys[0] == "space" and len(keys) > 3:  # a searched argument's key has a dot itself: space.model.hidden.low
            keys = ("space", f"{keys[1]}.{keys[2]}", *keys[3:]) if keys[1] == "model" else keys
        if keys[:2] == ("space", "model") and len(keys) == 3:
            keys = ("space", f"model.{keys[2]}")
        for depth, key in enumerate(keys[:-1]):
            level = level.setdefault(key, {})
            if not isinstance(level, dict):
                raise StudyFileError([Fault(where, None, f"{'.'.join(keys[: depth + 1])} holds no keys to set")])
        level[keys[-1]] = parsed
        self.overrides[keys] = where

    def fault(self, location: Location, text: str) -> Fault:
        """A fault at a key, or at the nearest key around it."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.overrides:
                return Fault(self.overrides[location[:length]], None, text)
            if location[:length] in self.lines:
                return Fault(self.where, self.lines[location[:length]], text)
        return Fault(self.where, 1 if self.lines else None, text)


class _Reader:
    """Builds plain values from YAML nodes, noting lines, repeated keys and values that contain themselves."""

    def __init__(self, loader: yaml.SafeLoader, where: str) -> None:
        self.loader, self.where = loader, where
        self.lines: dict[Location, int] = {}
        self.faults: list[Fault] = []
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Location) -> Any:
        """The value of a node at a path."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self.loader.construct_object(node)
        if id(node) in self._open or len(path) > 20:
            self._fault(node, "this value contains itself")
            return None
        self._open.add(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        finally:
            self._open.remove(id(node))

    def _list(self, node: yaml.Node, path: Location) -> list[Any]:
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Location) -> dict[str, Any]:
        given: dict[str, Any] = {}
        own = {id(key) for key, _ in node.value}
        self.loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, "a key is a word, not a list or a mapping")
                continue
            key = str(key_node.value)
            if key in given and id(key_node) in own:
                first = self.lines[(*path, key)]
                self._fault(key_node, f"{'.'.join(map(str, (*path, key)))} is given twice, first in line {first}")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            given[key] = self.value(value_node, (*path, key))
        return given

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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(other) for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"; beside it: {', '.join(near)}" if near else "; there are no study files in that folder"
        raise StudyFileError([Fault(str(path), None, f"there is no such file{hint}")]) from None
    except UnicodeDecodeError as error:
        raise StudyFileError([Fault(str(path), None, f"this is not UTF-8 text (byte {error.start})")]) from None
    except OSError as error:
        raise StudyFileError([Fault(str(path), None, f"it cannot be read: {error.strerror}")]) from None


def _kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "single value"
