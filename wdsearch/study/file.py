"""The only file that reads and writes YAML: a study file's content with the line of every key, and faults that name them."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wdsearch.errors import WdsearchError
from wdsearch.messages import printable, shown_path, shown_value

Location = tuple[str | int, ...]
MOST_VALUES, DEEPEST, LARGEST_BYTES, LONGEST_NUMBER = 5_000, 20, 200_000, 1_000


@dataclass(frozen=True)
class Fault:
    """One fault of a study: where it was written, and what was given, what is allowed, what to do."""

    where: str
    line: int | None
    text: str

    def __str__(self) -> str:
        location = f"{self.where}:{self.line}" if self.line else self.where
        return printable(f"{location}: {self.text}")


class StudyFileError(WdsearchError, ValueError):
    """All faults of a study at once, one line each."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults), key=lambda fault: (fault.line is None, fault.line or 0, fault.text)))
        super().__init__("\n".join(map(str, self.faults)))


_MERGE = "tag:yaml.org,2002:merge"


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
    if len(node.value) > LONGEST_NUMBER:
        raise ValueError
    return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


class StudySource:
    """A study's content, where each key of it was written, and the faults of the overrides."""

    folder: Path | None = None
    """Folder of the file, in which modules that the study names are looked for first."""

    def __init__(self, content: dict[str, Any], where: str, lines: Mapping[Location, int] | None = None) -> None:
        self.content, self.where, self.lines = content, where, dict(lines or {})
        self.overrides: dict[Location, str] = {}
        self.faults: list[Fault] = []

    @classmethod
    def from_file(cls, path: Path) -> "StudySource":
        """Read a study file; raises StudyFileError."""
        source = cls.from_text(_read(path), str(path))
        source.folder = path.absolute().parent
        return source

    @classmethod
    def from_text(cls, text: str, where: str) -> "StudySource":
        """Parse a study file's text; raises StudyFileError."""
        content, lines = _parsed(text, where)
        if not isinstance(content, dict):
            kind = "empty" if content is None else "a list" if isinstance(content, list) else "a single value"
            rule = "a study file is a mapping that begins with `study: NAME`"
            raise StudyFileError([Fault(where, 1, f"the file is {kind}; {rule}")])
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
            self.lines = {location: line for location, line in self.lines.items() if location[: len(keys)] != keys}
            self.overrides[keys] = where

    def _level(self, keys: tuple[str, ...], where: str) -> dict[str, Any]:
        """The mapping that holds the last of these keys."""
        level = self.content
        for depth, key in enumerate(keys[:-1]):
            below = level.setdefault(key, {})
            if not isinstance(below, dict):
                explanation = (
                    f"{'.'.join(keys[: depth + 1])} is {shown_value(below)}, which holds no keys; set all of it at once"
                )
                raise StudyFileError([Fault(where, None, explanation)])
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
        raise StudyFileError([_no_yaml(error, text, where)]) from None
    finally:
        if loader is not None:
            loader.dispose()
    if reader.faults:
        raise StudyFileError(reader.faults)
    return content, reader.lines


def _no_yaml(error: Exception, text: str, where: str) -> Fault:
    mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
    line = mark.line + 1 if mark else None if position is None else text.count("\n", 0, position) + 1
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    problem = "it is nested too deeply" if isinstance(error, RecursionError) else problem
    hint = "; indent with spaces, not with tabs" if "\\t" in problem else ""
    return Fault(where, line, f"this is not YAML: {problem}{hint}")


_Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


class _Reader:
    """Builds plain values from YAML nodes, noting lines, repeated keys and values that contain themselves."""

    def __init__(self, loader: yaml.SafeLoader, where: str) -> None:
        self.loader, self.where = loader, where
        self.lines: dict[Location, int] = {}
        self.faults: list[Fault] = []
        self._open: set[int] = set()
        self._flat: dict[int, _Pairs] = {}
        self._merged = 0

    def value(self, node: yaml.Node, path: Location) -> Any:
        """The value of a node at a path."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._check_size(node, path)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            return self._fault(node, "this value contains itself")
        self._open.add(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        finally:
            self._open.remove(id(node))

    def _check_size(self, node: yaml.Node, path: Location) -> None:
        """Aliases of aliases double at each line."""
        if len(path) > DEEPEST or len(self.lines) + self._merged > MOST_VALUES:
            text = f"this is too large for a study file ({MOST_VALUES} values, {DEEPEST} deep)"
            raise StudyFileError([Fault(self.where, node.start_mark.line + 1, text)])

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.rpartition(":")[2]
        try:
            value = self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):  # what PyYAML raises at `!!bool maybe`, `!!int ""`
            return self._fault(node, f"{shown_value(node.value)} is no {kind}")
        if value is not None and not isinstance(value, bool | int | float | str):
            return self._fault(
                node, f"{shown_value(node.value)} is a {kind}; allowed are text, numbers, true and false"
            )
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            return self._fault(node, f"{shown_value(value)} holds half a character")
        return value

    def _list(self, node: yaml.Node, path: Location) -> list[Any]:
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Location) -> dict[str, Any]:
        values = {}
        for key, (key_node, value_node) in self._pairs(node, path).items():
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            values[key] = self.value(value_node, (*path, key))
        return values

    def _pairs(self, node: yaml.MappingNode, path: Location) -> _Pairs:
        """A mapping's keys and values with those of `<<`, which its own override; of several the first decides."""
        if id(node) in self._flat:
            return self._flat[id(node)]
        self._flat[id(node)] = {}  # what a mapping that merges itself adds
        own: _Pairs = {}
        merged: _Pairs = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fault(key, "a key is a word, not a list or a mapping")
            elif key.value in own:
                first = own[key.value][0].start_mark.line + 1
                self._fault(key, f"{shown_path((*path, key.value))} is given twice, first in line {first}")
            else:
                own[key.value] = key, value
        for key, value in list(own.values()):
            if key.tag == _MERGE:
                del own[key.value]
                for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = self._merge(other, path) | merged
        self._flat[id(node)] = merged | own
        return self._flat[id(node)]

    def _merge(self, node: yaml.Node, path: Location) -> _Pairs:
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, "`<<` takes a mapping, or a list of mappings")
            return {}
        pairs = self._pairs(node, path)
        self._merged += len(pairs)
        self._check_size(node, path)
        return pairs

    def _fault(self, node: yaml.Node, text: str) -> None:
        self.faults.append(Fault(self.where, node.start_mark.line + 1, text))


def assignments(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """`NAME=YAML value` words of a command line as a mapping; raises StudyFileError for what is none.

    >>> assignments(["partition=gpu", "gpus=2"], "-o")
    {'partition': 'gpu', 'gpus': 2}
    """
    assigned = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise StudyFileError([Fault(f"{flag} {text}", None, "this is not NAME=VALUE, as in partition=gpu")])
        assigned[name.strip()] = _parsed(value, f"{flag} {text}")[0]
    return assigned


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1)  # no more: it may be a data set, or a device without end
        if len(text) <= LARGEST_BYTES:
            return text.decode("utf-8")
        problem = f"this is too large for a study file ({LARGEST_BYTES // 1000} kB)"
    except FileNotFoundError:
        problem = f"there is no such file{_files_near(path)}"
    except UnicodeDecodeError as error:
        problem = f"this is not UTF-8 text (byte {error.start}); save it as UTF-8"
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


def as_yaml(content: Any, flow: bool = True) -> str:
    """Plain content as YAML, in the order of its keys; with `flow` lists and short mappings are on one line.

    >>> print(as_yaml({"study": "digits", "budget": {"trials": 4, "epochs": 2}}), end="")
    study: digits
    budget: {trials: 4, epochs: 2}
    """
    style = None if flow else False
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=style, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and quotes what readers of YAML 1.2 would take for a number, such as 1e5."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"{_NUMBER}|^0o[0-7]+$"), [*"-+.0123456789"])
