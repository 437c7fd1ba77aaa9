"""From a study file, or its content as a mapping, to a checked StudyConfig."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from wdsearch.checks import check, shown
from wdsearch.schema import SECTIONS, Choice, Dimension, Limit, StudyConfig, by_name, scalar
from wdsearch.studyfile import Fault, Location, StudyFileError, StudySource, as_written, nearest

__all__ = ["StudyConfig", "StudyFileError", "load_study"]


def load_study(source: str | Path | Mapping[str, Any] | StudyConfig, overrides: Sequence[str] = ()) -> StudyConfig:
    """A study from a file, from its content as a mapping, or as it is; then `key.path=value` overrides.

    In a mapping, own objects may stand for `data`, `model`, `search.sampler` and `search.pruner`.
    Raises StudyFileError with all faults at once.
    """
    if isinstance(source, StudyConfig):
        if not overrides:
            return source
        source = {name: getattr(source, name) for name in source.model_fields_set}
    given = (
        StudySource(_copied(source), "study") if isinstance(source, Mapping) else StudySource.from_file(Path(source))
    )
    for text in overrides:
        given.override(text)
    sections, faults = _validated(given)
    faults += [given.fault(location, text) for location, text in check(sections)]
    if faults:
        raise StudyFileError(faults)
    return StudyConfig.model_construct(_fields_set=set(sections) & set(given.content), **sections)


def _validated(given: StudySource) -> tuple[dict[str, Any], list[Fault]]:
    """Each section by itself, so that a fault in one hides none in another."""
    faults = [
        given.fault((key,), f"{key} is not a known key{nearest(key, StudyConfig.model_fields)}")
        for key in given.content
        if key not in StudyConfig.model_fields
    ]
    sections: dict[str, Any] = {}
    for name, field in StudyConfig.model_fields.items():
        if name not in given.content:
            if field.is_required():
                faults.append(given.fault((), f"{name} is missing; add `{name}: ...`"))
            else:
                sections[name] = field.default
            continue
        try:
            sections[name] = _section(name, given.content[name], bool(given.lines))
        except ValidationError as error:
            faults += _faults(given, name, error)
            if name == "space" and isinstance(given.content[name], Mapping):
                sections[name] = _sound(given.content[name])
    return sections, faults


def _sound(space: Mapping[str, Any]) -> dict[str, Dimension]:
    """The keys of a faulty space that are well formed, so that the others' faults do not hide theirs."""
    found = {}
    for key, value in space.items():
        with suppress(ValidationError):
            found[key] = Dimension.model_validate(scalar(value))
    return found


def _faults(given: StudySource, name: str, error: ValidationError) -> list[Fault]:
    """One fault for each key: what each member of a union wants is joined by `or`."""
    found: dict[Location, list[Fault]] = {}
    for item in error.errors():
        fault = _fault(given, (name, *item["loc"]), item)
        found.setdefault(_own_keys(item["loc"]), []).append(fault)
    joined = []
    for faults in found.values():
        first, *others = dict.fromkeys(faults)
        same = [
            other for other in others if other.text.split("; allowed is ")[0] == first.text.split("; allowed is ")[0]
        ]
        text = " or ".join([first.text, *(other.text.split("; allowed is ")[-1] for other in same)])
        joined += [Fault(first.where, first.line, text), *(other for other in others if other not in same)]
    return joined


def _section(name: str, value: Any, from_file: bool) -> Any:
    field = StudyConfig.model_fields[name]
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    if name in ("data", "model"):
        if not (from_file or isinstance(value, Mapping | BaseModel | str)):
            return value
        return SECTIONS[(name,)].model_validate(by_name(value))
    section = TypeAdapter(annotation).validate_python(value)
    if name == "search":
        section = section.model_copy(
            update={key: _choice(key, getattr(section, key), from_file) for key in ("sampler", "pruner")}
        )
    return section


def _choice(key: str, value: Any, from_file: bool) -> Any:
    if value is None or isinstance(value, Choice) or not (from_file or isinstance(value, Mapping)):
        return value
    try:
        return Choice.model_validate(value)
    except ValidationError as error:
        details = [{**item, "loc": (key, *item["loc"])} for item in error.errors(include_url=False)]
        raise ValidationError.from_exception_data(key, details) from None  # type: ignore[arg-type]


_HIDDEN = re.compile(
    r"function-(before|after|plain|wrap)\[.*\]|constrained-.*|literal\[.*\]|int|float|str|bool|is-instance.*"
)


def _own_keys(location: Location) -> Location:
    """A location without pydantic's names for the members of a union."""
    return tuple(key for key in location if isinstance(key, int) or not _HIDDEN.fullmatch(key))


def _fault(given: StudySource, location: Location, error: Any) -> Fault:
    """Pydantic's error in our words: what was given; what is allowed."""
    location = _own_keys(location)
    path, value = as_written(location), error["input"]
    if error["type"] == "missing":
        return given.fault(location, f"{path} is missing")
    if error["type"] == "extra_forbidden":
        section = Dimension if location[0] == "space" else SECTIONS.get(location[:-1], StudyConfig)
        section = Limit if location[:2] == ("objective", "constraints") else section
        return given.fault(location, f"{path} is not a known key{nearest(str(location[-1]), section.model_fields)}")
    allowed = re.sub(r"^(Input|String|List|Tuple|Value) should (be|have|match)", r"allowed is", error["msg"])
    if error["type"] == "string_pattern_mismatch":
        allowed = (
            "allowed are letters, digits and _ - ." if location == ("study",) else "allowed is package.module.Class"
        )
    if error["type"] in ("model_type", "dict_type"):
        allowed = "allowed is a mapping"
    return given.fault(location, f"{path} is {shown(value)}; {allowed}")


def _copied(value: Any) -> Any:
    """Mappings and lists copied, so that overrides change nothing of the caller's; objects as they are."""
    if isinstance(value, Mapping):
        return {str(key): _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
