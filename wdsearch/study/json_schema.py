"""The JSON Schema of study files, by which editors complete and check them while they are written.

Made from the sections of `schema.py` and the tables of what can be named. It may allow what `load_study` refuses, for not
all can be said in JSON Schema, but refuses nothing that `load_study` accepts.
"""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.optimizers import DEFAULT, OPTIMIZERS
from wdsearch.plugins import table_of
from wdsearch.regularizers import REGULARIZERS, Regularizer
from wdsearch.strategies.pruners import PRUNERS
from wdsearch.strategies.samplers import SAMPLERS
from wdsearch.study.annotations import allowed, as_json_schema
from wdsearch.study.catalog import Argument, arguments, as_json, keyword_arguments, options
from wdsearch.study.options import options_by_name
from wdsearch.study.schema import DataConfig, Dimension, Entry, Group, Source, StudyConfig, with_options
from wdsearch.tasks.metrics import METRICS
from wdsearch.types import Interval

FILE = "study.schema.json"
HEADER = f"# yaml-language-server: $schema={FILE}\n"

Schema = dict[str, Any]
_LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def study_schema() -> Schema:
    """The schema, in words that drafts 7 to 2020-12 share.

    >>> study_schema()["properties"]["schedule"]["anyOf"][0]["properties"]["on"]["enum"]
    ['kubernetes', 'local', 'ray', 'slurm']
    """
    schema = _plain(StudyConfig)
    sections = schema["properties"]
    sections["data"] |= _named(DataConfig, DATASETS)
    sections["model"] |= _named(Source, MODELS)
    sections["optimizer"] = _optimizer()
    sections["space"] |= _space()
    strategies: dict[str, Mapping[str, type]] = {"sampler": SAMPLERS, "pruner": PRUNERS}
    for key, table in strategies.items():
        known = {name: options(name, kind) for name, kind in table.items()}
        _describe_choice(sections["search"]["properties"], key, _chosen(known))
    trackers = {name: keyword_arguments(kind) for name, kind in table_of("trackers").items()}
    _describe_choice(sections, "tracking", _chosen(trackers), {"type": "null"})
    _name_engines(sections["schedule"])
    _name_results(sections["objective"]["properties"])
    header = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "A study of wdsearch"}
    return header | schema


# -- pydantic's schema, without references and in the words of all drafts ------------------------------------------


def _plain(model: type[BaseModel]) -> Schema:
    generated = model.model_json_schema()
    definitions = generated.pop("$defs", {})
    return _inlined(generated, definitions)


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """In draft 7 nothing counts beside a reference, and `prefixItems` is unknown; all our tuples are pairs of one kind."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]] | {k: v for k, v in schema.items() if k != "$ref"}
    inlined = {}
    for word, value in schema.items():
        if word == "prefixItems":
            inlined["items"] = _inlined(value[0], definitions)
        elif word == "properties":
            inlined[word] = {key: _inlined(item, definitions) for key, item in value.items()}
        elif word != "title" and not (word == "default" and value in (None, [], {})):
            inlined[_LIMITS.get(word, word)] = _inlined(value, definitions)
    return inlined


# -- what can be named ---------------------------------------------------------------------------------------------


def _named(section: type[Source], table: Mapping[str, Callable[..., Any]]) -> Schema:
    """A name alone, or a mapping with `name` or `class_path`; a name says which arguments there are."""
    mapping = _plain(section)
    mapping["properties"]["name"] |= {"anyOf": [{"enum": sorted(table)}, {"type": "null"}]}
    path = mapping["properties"]["class_path"]
    path["anyOf"] = [{"type": "string", "pattern": r"^[^\s.]+(\.[^\s.]+)+$"}, {"type": "null"}]
    mapping["anyOf"] = [{"required": ["name"]}, {"required": ["class_path"]}]
    mapping["allOf"] = [_if_named(name, {"init_args": _arguments(builder)}) for name, builder in table.items()]
    return {"anyOf": [_names(table), mapping]}


def _names(table: Iterable[str]) -> Schema:
    return {"type": "string", "enum": sorted(table)}


def _if_named(name: str, properties: Schema) -> Schema:
    condition = {"properties": {"name": {"const": name}}, "required": ["name"]}
    return {"if": condition, "then": {"properties": properties}}


def _arguments(builder: Callable[..., Any]) -> Schema:
    properties = {argument.name: _value(argument) for argument in arguments(builder)}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _value(argument: Argument) -> Schema:
    default = argument.as_dict().get("default")
    return as_json_schema(argument.annotation) | ({} if default is None else {"default": default})


def _describe_choice(keys: Schema, key: str, choice: Schema, *others: Schema) -> None:
    choice["anyOf"] += others
    keys[key] = {"description": keys[key]["description"], **choice}


def _name_engines(schedule: Schema) -> None:
    for form in schedule["anyOf"]:
        if "properties" in form:
            form["properties"]["on"]["enum"] = sorted(table_of("engines"))


def _chosen(table: Mapping[str, list[Argument]]) -> Schema:
    """A name alone, or a mapping of the name and its options."""
    known = {name: {option.name: _value(option) for option in listed} for name, listed in table.items()}
    mapping = {
        "type": "object",
        "properties": {"name": _names(table)},
        "required": ["name"],
        "allOf": [
            rule | {"then": rule["then"] | {"propertyNames": {"enum": ["name", *own]}}}
            for name, own in known.items()
            for rule in [_if_named(name, own)]
        ],
    }
    return {"anyOf": [_names(table), mapping]}


def _optimizer() -> Schema:
    """The section whose `name`, or its default, says which options there are; those of others may be left empty."""
    section = _plain(with_options())
    known = {name: section["properties"].pop(name) for name in options_by_name()}
    section["patternProperties"] = {f"^{name}$": {} for name in known}
    section["allOf"] = []
    for name, optimizer in OPTIMIZERS.items():
        own = {key: known[key] | {"default": as_json(option.default)} for key, option in optimizer.options.items()}
        rule = _if_named(name, own)
        rule["then"]["patternProperties"] = {f"^{other}$": {"type": "null"} for other in known if other not in own}
        if name == DEFAULT:
            del rule["if"]["required"]
        section["allOf"].append(rule)
    return section


def _name_results(objective: Schema) -> None:
    """The results that a goal or a constraint may name."""
    sides = [f"{side}_{metric}" for side in ("val", "train", "gap") for metric in METRICS]
    names = {"type": "string", "enum": ["val_loss", "train_loss", "gap", *sides]}
    for key in ("minimize", "maximize"):
        objective[key]["anyOf"] = [names, {"type": "array", "items": names}]
    objective["constraints"]["propertyNames"] = names


# -- the space -----------------------------------------------------------------------------------------------------


def _space() -> Schema:
    keys = {"lr": _rate()} | {key: _strength(regularizer) for key, regularizer in REGULARIZERS.items()}
    searchable = {
        f"model.{argument.name}": _argument(f"Argument of {name}, {allowed(argument.annotation)}.", argument)
        for name, builder in MODELS.items()
        for argument in arguments(builder)
    }
    return {
        "type": "object",
        "minProperties": 1,
        "properties": keys | searchable,
        "patternProperties": {r"^model\.": _argument("Argument of the network.")},
        "additionalProperties": False,
    }


def _rate() -> Schema:
    usual = {"low": 3e-4, "high": 3e-2, "log": True}
    rate = _dimension(_within(Interval(0.0, math.inf, low_open=True)), off={"const": False}, snippet=usual)
    return {"description": "Learning rate at the top of the schedule.", **rate}


def _strength(regularizer: Regularizer) -> Schema:
    neutral, timescale = f"{regularizer.neutral:g}".replace("inf", ".inf"), regularizer.key == "weight_decay"
    lines = [f"{regularizer.summary}.", f"Unit: {regularizer.unit}.", f"Off at {neutral}."]
    snippet = {"timescale": [0.01, 10], "off": True} if timescale else regularizer.usual._asdict()
    snippet = {word: value for word, value in snippet.items() if value is not False}
    numbers = _within(regularizer.domain, regularizer.integer)
    schema = _dimension(numbers, {"type": "boolean"}, timescale, snippet)
    if regularizer.acts_on is not None:
        group = _mapping(numbers, numbers, {"type": "boolean"}, timescale, Group)
        schema["anyOf"].append(_groups(group))
    return {"description": "\n\n".join(lines), **schema}


def _groups(group: Schema) -> Schema:
    """A mapping whose only key that counts is `groups`."""
    described = _plain(Entry)["properties"]["groups"]["description"]
    groups = {"description": described, "type": "array", "minItems": 1, "items": group}
    others = {word: {"enum": [None, False]} for word in Dimension.model_fields if word != "value"}
    return {
        "type": "object",
        "properties": {"groups": groups},
        "patternProperties": {f"^{word}$": rule for word, rule in others.items()},
        "required": ["groups"],
        "additionalProperties": False,
    }


def _within(domain: Interval, integer: bool = False) -> Schema:
    schema: Schema = {"type": "number"}
    if integer:  # JSON Schema has no ∞, which is off
        return {"anyOf": [_within(domain) | {"type": "integer"}, {"type": "number", "minimum": sys.float_info.max}]}
    if domain.low > -math.inf:
        schema["exclusiveMinimum" if domain.low_open else "minimum"] = domain.low
    if domain.high < math.inf:
        schema["exclusiveMaximum" if domain.high_open else "maximum"] = domain.high
    return schema


def _argument(description: str, known: Argument | None = None) -> Schema:
    """A fixed value may be anything but a mapping, which is a range or choices."""
    mapping = _mapping({"type": "number"}, {}, {"const": False}, timescale=False)
    fixed = {"type": ["number", "string", "boolean", "array", "null"]}
    schema = {"description": description, "anyOf": [fixed, mapping]}
    default = known.as_dict().get("default") if known else None
    offered = {"label": "choices", "body": {"choices": [default]}}
    nested = default is None or isinstance(default, list)  # the YAML language server writes a list of lists as one list
    return schema | ({} if nested else {"defaultSnippets": [offered]})


def _dimension(numbers: Schema, off: Schema, timescale: bool = False, snippet: Schema | None = None) -> Schema:
    """A fixed number, or a mapping; `defaultSnippets` is what the YAML language server offers to insert."""
    schema: Schema = {"anyOf": [numbers, _mapping(numbers, numbers, off, timescale)]}
    return schema | ({"defaultSnippets": [{"label": "a range worth searching", "body": snippet}]} if snippet else {})


def _mapping(bounds: Schema, values: Schema, off: Schema, timescale: bool, kind: type[Dimension] = Dimension) -> Schema:
    """Keys of which only an empty or false value is allowed are patterns: editors do not offer them."""
    mapping = _plain(kind)
    properties = mapping["properties"]
    for end in ("low", "high"):
        properties[end]["anyOf"] = [bounds, {"type": "null"}]
    properties["choices"]["anyOf"][0]["items"] = values
    properties["value"] |= values
    words = {"off": off} | ({} if timescale else {"timescale": {"type": "null"}})
    words |= {} if kind is Group else {"groups": {"type": "null"}}
    unoffered = {word: rule for word, rule in words.items() if rule != {"type": "boolean"}}
    mapping["patternProperties"] = {f"^{word}$": rule for word, rule in unoffered.items()}
    mapping["properties"] = {word: rule for word, rule in properties.items() if word not in unoffered}
    mapping["anyOf"] = [{"required": [word]} for word in ("low", "choices", "timescale", "value")]
    return mapping
