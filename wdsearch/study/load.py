"""From a study file, or its content as a mapping, to a checked StudyConfig."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from wdsearch.messages import nearest, shown_path
from wdsearch.study.file import Fault, Location, StudyFileError, StudySource
from wdsearch.study.schema import SECTIONS, Entry, Group, Limit, Source, StudyConfig, with_options
from wdsearch.study.validation import invalid_keys

__all__ = ["StudyConfig", "StudyFileError", "load_study"]


def load_study(
    source: str | Path | Mapping[str, Any] | StudyConfig, overrides: Sequence[str] = (), folder: Path | None = None
) -> StudyConfig:
    """A study from a file, from its content as a mapping, or as it is; then `key.path=value` overrides.

    In a mapping, own objects may stand for `data`, `model`, `search.sampler` and `search.pruner`; its own modules and tables are
    looked for in `folder`, as those of a file beside it.
    Raises StudyFileError with all faults at once.

    >>> config = load_study("studies/mnist1d.yaml", ["budget.trials=8"])
    >>> config.study, config.budget.trials, config.space["dropout"].high
    ('mnist1d', 8, 0.6)
    """
    if isinstance(source, StudyConfig) and not overrides:
        return source
    study = _source(source)
    study.folder = study.folder or folder
    for text in overrides:
        study.override(text)
    sections, faults = _validated(study)

    # torch, lightning and optuna: a file that cannot be read does not wait for them
    from wdsearch.study.check import check, settled

    faults += [*study.faults, *(study.fault(location, text) for location, text in check(sections))]
    if faults:
        raise StudyFileError(faults)
    return settled(StudyConfig.model_construct(_fields_set=set(sections) & set(study.content), **sections))


def _source(source: str | Path | Mapping[str, Any] | StudyConfig) -> StudySource:
    if isinstance(source, str | Path):
        return StudySource.from_file(Path(source))
    try:
        study = StudySource(_content(source), "study")
    except RecursionError:
        raise StudyFileError([Fault("study", None, "it contains itself, or is nested too deeply")]) from None
    sections = (source.data, source.model) if isinstance(source, StudyConfig) else ()
    study.folder = next((section.folder for section in sections if isinstance(section, Source)), None)
    return study


def _content(value: Any) -> Any:
    """Copies of sections, mappings and lists, so that overrides change nothing of the caller's; own objects stay."""
    if isinstance(value, BaseModel):
        return {name: _content(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, Mapping):
        # YAML 1.1, as yaml.safe_load reads it, takes the key `off` for False
        return {"off" if key is False else str(key): _content(item) for key, item in value.items()}
    return [_content(item) for item in value] if isinstance(value, list | tuple) else value


def _validated(source: StudySource) -> tuple[dict[str, Any], list[Fault]]:
    """Each section by itself, so that a fault in one hides none in another."""
    faults = [
        source.fault((key,), f"{shown_path((key,))} is not a known key{nearest(key, StudyConfig.model_fields)}")
        for key in source.content
        if key not in StudyConfig.model_fields
    ]
    sections: dict[str, Any] = {}
    for name, field in StudyConfig.model_fields.items():
        if name in source.content:
            try:
                sections[name] = _section(name, source.content[name], source.folder)
            except ValidationError as error:
                faults += _faults(source, name, error)
                sections |= _sound_part(name, source.content[name], error, source.folder)
        elif field.is_required():
            faults.append(source.fault((), f"{name} is missing; add `{name}: ...`"))
        else:
            sections[name] = field.default
    return sections, faults


def _section(name: str, value: Any, folder: Path | None = None) -> Any:
    return _adapter(name).validate_python(value, context={"folder": folder})


@cache
def _adapter(name: str) -> TypeAdapter:
    field = StudyConfig.model_fields[name]
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(annotation)


_DECISIVE = {"name", "class_path", "on"}
"""Keys that say what the others of a section mean."""
_STAND_INS = {"schedule": {"cron": "@daily"}}
"""Values for keys that a section cannot do without, where a faulty one would hide the faults of others."""


def _sound_part(name: str, value: Any, error: ValidationError, folder: Path | None) -> dict[str, Any]:
    """Well-formed part of a faulty section, so that its faults are not all: how its other keys fit is checked as well."""
    faulty = {item["loc"][0] for item in error.errors() if item["loc"]}
    if not isinstance(value, Mapping) or faulty & _DECISIVE:
        return {}
    sound = {key: item for key, item in value.items() if key not in faulty}
    with suppress(ValidationError):
        return {name: _section(name, _STAND_INS.get(name, {}) | sound, folder)}
    return {}


def _faults(source: StudySource, name: str, error: ValidationError) -> list[Fault]:
    return [source.fault(location, text) for location, text in invalid_keys(error, (name,), _unknown)]


def _unknown(location: Location) -> str:
    return f"{shown_path(location)} is not a known key{nearest(str(location[-1]), _known_beside(location))}"


def _known_beside(location: Location) -> set[str]:
    """The keys that a section may hold; a fixed value is written as the value itself, but not in a group."""
    if location[0] == "space" and "groups" in location:
        return set(Group.model_fields)
    if location[:-1] == ("optimizer",):
        return set(with_options().model_fields)
    section = Entry if location[0] == "space" else SECTIONS.get(location[:-1], StudyConfig)
    section = Limit if location[:2] == ("objective", "constraints") else section
    return set(section.model_fields) - {"value"}
