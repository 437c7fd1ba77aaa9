"""The data and the network that a study names, as callables: ours by name, others by import path, or own objects."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from wdsearch.datasets import DATASETS
from wdsearch.errors import BuildError
from wdsearch.messages import nearest, shown_value
from wdsearch.models import MODELS
from wdsearch.population.user.framework import is_data_module, lightning_base
from wdsearch.population.user.model_kinds import builds_lightning_module, why_refused
from wdsearch.study.annotations import allowed, annotation_of, fits
from wdsearch.study.file import Location
from wdsearch.study.import_path import import_path, why_not
from wdsearch.study.nested import nested_faults
from wdsearch.study.schema import DataConfig, Source
from wdsearch.tasks.metrics import METRICS
from wdsearch.tasks.task import LOSSES

Faults = Iterator[tuple[Location, str]]
SHAPE = ("inputs", "outputs", "shape", "categories")
"""Arguments of networks that come from the data."""
_SHAPES = ((1, 8, 8), (1, 27720), (27720,))
"""Rows on which networks are tried: images, and sequences of a length that most numbers divide."""


def builder_of(model: Any) -> Callable[..., Any] | None:
    """Builder of the network from `inputs`, `outputs` and its own arguments; None for a network already built.

    >>> builder_of(Source(name="mlp")) is MODELS["mlp"], builder_of(nn.Linear(2, 1)) is None
    (True, True)
    """
    if isinstance(model, nn.Module):
        return None
    return _builder(model, MODELS) if isinstance(model, Source) else model


def is_solo(model: Any) -> bool:
    """True for what builds user-defined LightningModules, which are trained by Trainers of their own.

    >>> is_solo(Source(name="mlp"))
    False
    """
    return builds_lightning_module(builder_of(model))


def _builder(source: Source, table: Mapping[str, Any]) -> Any:
    """Builder that a source names; None if that is unknown, not importable, or nothing that can be called."""
    try:
        by_path = source.class_path is not None
        builder = import_path(str(source.class_path), source.folder) if by_path else table.get(source.name or "")
    except (Exception, SystemExit):  # whatever a user's module raises when it is imported
        return None
    return builder if callable(builder) else None


def attribute_of_data(data: Any, name: str) -> str | None:
    """The `task` or `metric` that the data say of themselves, if they say it before they are built.

    >>> attribute_of_data(DataConfig(name="diabetes"), "task")
    'regression'
    """
    value = getattr(_builder(data, DATASETS) if isinstance(data, Source) else data, name, None)
    return value if isinstance(value, str) else None


def parameters_of(builder: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """A builder's arguments; without any if Python cannot tell.

    >>> list(parameters_of(lambda hidden, depth=2: None)), list(parameters_of(dict))
    (['hidden', 'depth'], [])
    """
    try:
        return inspect.signature(builder).parameters
    except (TypeError, ValueError):
        return {}


def arguments_of(builder: Callable[..., Any]) -> set[str] | None:
    """The names that a study may give; None if the builder takes any, or Python cannot tell.

    >>> def network(inputs, outputs, width): ...
    >>> arguments_of(network), arguments_of(lambda **options: None)
    ({'width'}, None)
    """
    parameters = parameters_of(builder)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if takes_any or not parameters else set(parameters) - given_to(builder)


def given_to(builder: Callable[..., Any]) -> set[str]:
    """The arguments that are not the user's to give: of data those from the study, of a network the sizes of the data.

    >>> sorted(given_to(MODELS["mlp"]))
    ['categories', 'inputs', 'outputs', 'shape']
    """
    is_data = lightning_base(builder, "LightningDataModule") is not None
    return from_study(builder) if is_data else set(SHAPE)


def from_study(builder: Callable[..., Any]) -> set[str]:
    """The arguments that a data set takes from the rest of the study, as it says itself.

    >>> sorted(from_study(DATASETS["table"]))
    ['codes', 'folder', 'task']
    """
    return set(getattr(builder, "from_study", ()))


def _lacking(builder: Callable[..., Any], source: Source) -> list[str]:
    """The data's arguments that nobody gives."""
    known = {"split_seed", "seed", *source.init_args, *from_study(builder)}
    needed = (name for name, p in parameters_of(builder).items() if p.default is p.empty and p.kind not in _MANY)
    return [name for name in needed if name not in known]


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def misfit(builder: Callable[..., Any], name: str, value: Any) -> str | None:
    """Words for what an argument of one of our builders takes, if the value is of another kind.

    >>> misfit(MODELS["mlp"], "hidden", 8), misfit(MODELS["mlp"], "hidden", [8])
    ('a list of whole numbers', None)
    """
    parameter = parameters_of(builder).get(name)
    annotation = annotation_of(parameter) if parameter else ""
    return None if fits(value, annotation) else allowed(annotation)


def default_of(model: Any, name: str) -> Any:
    """Value of a network's argument if nothing is searched: as `init_args` say, else the builder's default.

    Raises LookupError if neither says.

    >>> default_of(Source(name="mlp", init_args={"hidden": [8]}), "hidden"), default_of(Source(name="mlp"), "dropout")
    ([8], 0.0)
    """
    first, *inner = name.split(".")
    if isinstance(model, Source) and first in model.init_args:
        return _within(model.init_args[first], inner)
    builder = builder_of(model)
    parameters = parameters_of(builder) if builder else {}
    default = parameters[first].default if first in parameters else inspect.Parameter.empty
    default = _within(default, inner) if inner else default
    if default is inspect.Parameter.empty:
        raise LookupError(name)
    return default


def _within(value: Any, names: list[str]) -> Any:
    """Value within mappings. Raises LookupError if there is none."""
    for name in names:
        if not isinstance(value, Mapping):
            raise LookupError(name)
        value = value[name]
    return value


def refused(model: Any, arguments: Mapping[str, Any]) -> str | None:
    """Reason why one of our networks cannot be built with these arguments; None if it can, or is not ours.

    >>> refused(Source(name="mlp"), {"hidden": [8]}) is None
    True
    >>> refused(Source(name="mlp"), {"activation": "swoosh"})
    "activation is 'swoosh'; allowed are relu, gelu, silu, tanh"
    """
    builder = MODELS.get(model.name or "") if isinstance(model, Source) else None
    if builder is None:
        return None
    refusals = [_refusal(builder, shape, model.init_args | dict(arguments)) for shape in _SHAPES]
    if None in refusals:
        return None
    return next((text for text in refusals if text and not text.startswith("rows of shape")), refusals[0])


def _refusal(builder: Callable[..., Any], shape: tuple[int, ...], arguments: Mapping[str, Any]) -> str | None:
    """Refusal of a builder of its arguments, for rows of a shape."""
    taken = {"inputs": 2, "outputs": 2, "shape": shape, "categories": ()}
    own = {name: value for name, value in taken.items() if name in parameters_of(builder)}
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            builder(**own, **arguments)
    except Exception as error:  # a builder may refuse by any error
        return str(error).splitlines()[0]
    return None


def check_data(data: Any) -> Faults:
    """Faults of the data's source.

    >>> [text.partition("?")[0] for _, text in check_data(DataConfig(name="digts"))]
    ["data.name is 'digts'; did you mean digits"]
    """
    if isinstance(data, DataConfig):
        yield from _check("data", data, DATASETS)
        builder = _builder(data, DATASETS)
        if builder is not None and (lacking := _lacking(builder, data)):
            location = ("data", "init_args") if data.init_args else ("data",)
            text = f"{data.name or data.class_path} needs {' and '.join(lacking)}"
            yield location, f"data.init_args: {text}, as in init_args: {{{lacking[0]}: ...}}"
        taken = arguments_of(builder) if data.class_path and builder is not None else None
        if "split_seed" in data.model_fields_set and taken is not None and "split_seed" not in taken:
            yield (
                ("data", "split_seed"),
                f"data.split_seed: {data.class_path} takes no argument split_seed; leave it out",
            )
    elif not is_data_module(data):
        yield ("data",), f"data is {shown_value(data)}; allowed is a name, a class_path or a LightningDataModule object"
    tables: dict[str, Iterable[str]] = {"task": LOSSES, "metric": METRICS}
    for name, known in tables.items():
        own = attribute_of_data(data, name)
        if own is not None and own not in known:
            yield ("data",), f"data: the class says {name} = {own!r}{nearest(own, known)}"


def check_model(model: Any) -> Faults:
    """Faults of the network's source; one of ours is built, without memory, to hear whether it takes its arguments.

    >>> [text.partition("?")[0] for _, text in check_model(Source(name="mlp", init_args={"hiden": [8]}))]
    ['model.init_args.hiden is not an argument of mlp; did you mean hidden']
    """
    if isinstance(model, Source):
        faults = [*_check("model", model, MODELS)]
        refusal = None if faults else refused(model, {})
        yield from faults
        if refusal:
            yield ("model", "init_args"), f"model.init_args: {model.name} refuses them: {refusal}"
        if not faults and model.class_path and (text := why_refused(model, builder_of(model))):
            yield ("model", "class_path"), text if text.startswith("model") else f"model.class_path: {text}"
    elif not callable(model):
        yield (
            ("model",),
            f"model is {shown_value(model)}; allowed is a name, a class_path, an nn.Module or what builds one",
        )
    elif text := why_refused(model, builder_of(model)):
        yield ("model",), text if text.startswith("model") else f"model: {text}"


def _check(key: str, source: Source, table: Mapping[str, Any]) -> Faults:
    if (source.name is None) == (source.class_path is None):
        yield (key,), f"{key} takes either `name` (known: {', '.join(sorted(table))}) or `class_path` with `init_args`"
    elif source.name is not None and source.name not in table:
        yield (key, "name"), f"{key}.name is {shown_value(source.name)}{nearest(source.name, table)}"
    elif (builder := _builder(source, table)) is None:
        reason = why_not(str(source.class_path), source.folder)
        yield (key, "class_path"), f"{key}.class_path is {source.class_path}; {reason}"
    else:
        known, called = arguments_of(builder), source.name or source.class_path
        for name in sorted(source.init_args.keys() - known) if known is not None else ():
            text = f"{key}.init_args.{name} is not an argument of {called}{nearest(name, known or ())}"
            yield (key, "init_args", name), text
        for name, value in source.init_args.items() if source.class_path else ():
            for text in nested_faults(value, f"{key}.init_args.{name}", source.folder):
                yield (key, "init_args", name), text
        for name, value in source.init_args.items() if source.name else ():
            if kind := misfit(builder, name, value):
                yield (key, "init_args", name), f"{key}.init_args.{name} is {shown_value(value)}; allowed is {kind}"


def shape_arguments(builder: Callable[..., Any], data: Any) -> dict[str, Any]:
    """Arguments that a network's builder takes from the data; those with defaults only if the data say them. Raises BuildError.

    >>> from types import SimpleNamespace
    >>> shape_arguments(lambda inputs, outputs, width=8: None, SimpleNamespace(inputs=64, outputs=10))
    {'inputs': 64, 'outputs': 10}
    """
    parameters = parameters_of(builder)
    needed = [name for name in SHAPE if name in parameters and parameters[name].default is inspect.Parameter.empty]
    names = [name for name in SHAPE if name in parameters and (name in needed or hasattr(data, name))]
    try:
        return {name: getattr(data, name) for name in names}
    except AttributeError as error:
        raise BuildError(
            f"model: it takes {' and '.join(needed)} from the data, but {type(error).__name__}: {error}"
        ) from error
