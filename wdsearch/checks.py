"""What no single key can say: whether the keys of a study fit each other, the regularizers, models, data and optuna."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.regularizers import REGULARIZERS, Regularizer
from wdsearch.samplers import PRUNERS, SAMPLERS, make_pruner, make_sampler, option_names
from wdsearch.schema import Choice, DataConfig, Dimension, ObjectiveConfig, OptimizerConfig, Source
from wdsearch.studyfile import Location, as_written, nearest
from wdsearch.tasks import METRICS

Faults = Iterator[tuple[Location, str]]
ONLY = {"adamw": ("betas", "eps"), "sgd": ("momentum", "nesterov")}


def check(sections: Mapping[str, Any]) -> Faults:
    """Faults of the sections that are well formed by themselves, each with the key that it is about."""
    for needed, checker in CHECKS:
        if all(name in sections for name in needed):
            yield from checker(*(sections[name] for name in needed))


def _data(data: Any) -> Faults:
    if isinstance(data, Source):
        yield from _source("data", data, DATASETS, _class_arguments)


def _model(model: Any) -> Faults:
    if isinstance(model, Source):
        yield from _source("model", model, MODELS, _arguments)


def _source(key: str, source: Source, table: Mapping[str, Any], arguments: Callable[[Any], set[str]]) -> Faults:
    if (source.name is None) == (source.class_path is None):
        yield (key,), f"{key} takes either `name` (known: {', '.join(sorted(table))}) or `class_path` with `init_args`"
    elif source.name is not None and source.name not in table:
        yield (key, "name"), f"{key}.name is {source.name!r}{nearest(source.name, table)}"
    elif source.name is not None:
        known = arguments(table[source.name])
        for name in source.init_args.keys() - known:
            yield (
                (key, "init_args", name),
                f"{key}.init_args.{name} is not an argument of {source.name}{nearest(name, known)}",
            )


def _arguments(builder: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(builder).parameters) - {"inputs", "outputs"}


def _class_arguments(datamodule: type) -> set[str]:
    return set(inspect.signature(datamodule).parameters)


def _optimizer(optimizer: OptimizerConfig) -> Faults:
    for other, options in ONLY.items():
        for option in options if other != optimizer.name else ():
            if getattr(optimizer, option) is not None:
                yield ("optimizer", option), f"optimizer.{option} belongs to {other}; this study uses {optimizer.name}"
    if optimizer.nesterov and optimizer.momentum == 0:
        yield ("optimizer", "nesterov"), "optimizer.nesterov is true; it needs a momentum above 0"


# -- the space -------------------------------------------------------------------------------------------------


def _space(space: Mapping[str, Dimension], model: Any, task: str | None, data: Any) -> Faults:
    if not any(dimension.form != "fixed" for dimension in space.values()):
        yield ("space",), "space searches nothing; give at least one range, as in weight_decay: {timescale: [0.01, 10]}"
    for key, dimension in space.items():
        path = ("space", key)
        if key in REGULARIZERS:
            yield from _strength(path, REGULARIZERS[key], dimension, task or _task_of(data))
        elif key == "lr":
            yield from _rate(path, dimension)
        elif key.startswith("model."):
            yield from _argument(path, key.removeprefix("model."), dimension, model)
        else:
            yield path, f"space.{key} is not a known key{nearest(key, ['lr', 'model.<argument>', *REGULARIZERS])}"


def _strength(path: Location, regularizer: Regularizer, dimension: Dimension, task: str | None) -> Faults:
    yield from _form(path, dimension)
    if task is not None and task not in regularizer.tasks:
        yield path, f"{as_written(path)} works for {' and '.join(regularizer.tasks)}; this study's task is {task}"
    if dimension.form == "timescale" and regularizer.key != "weight_decay":
        yield (
            (*path, "timescale"),
            f"{as_written(path)}.timescale: only weight_decay has a timescale; give low and high",
        )
    for place, value in _values(dimension):
        if isinstance(value, bool) or value not in regularizer.domain:
            yield (*path, *place[:1]), f"{as_written((*path, *place))} is {shown(value)}; {_allowed(regularizer)}"
        elif regularizer.integer and value != math.inf and not float(value).is_integer():
            yield (
                (*path, *place[:1]),
                f"{as_written((*path, *place))} is {shown(value)}; {regularizer.key} counts {regularizer.unit}",
            )
    if dimension.off and dimension.form == "fixed":
        yield (*path, "off"), f"{as_written(path)}.off: a fixed value is always on; give a range, or leave the key out"


def _rate(path: Location, dimension: Dimension) -> Faults:
    yield from _form(path, dimension)
    for place, value in _values(dimension):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            yield (
                (*path, *place[:1]),
                f"{as_written((*path, *place))} is {shown(value)}; a learning rate lies in (0, ∞)",
            )
    for word in ("off", "timescale"):
        if getattr(dimension, word):
            yield (*path, word), f"{as_written(path)}.{word}: only a regularizer has it; give low and high"


def _argument(path: Location, name: str, dimension: Dimension, model: Any) -> Faults:
    yield from _form(path, dimension)
    for word in ("off", "timescale"):
        if getattr(dimension, word):
            yield (*path, word), f"{as_written(path)}.{word}: only a regularizer has it; give low and high or choices"
    if isinstance(model, Source) and model.name in MODELS:
        known = _arguments(MODELS[model.name])
        if name not in known:
            yield path, f"{as_written(path)}: {name} is not an argument of {model.name}{nearest(name, known)}"


def _form(path: Location, dimension: Dimension) -> Faults:
    """Whether a dimension is one of: a fixed value, low and high, choices, timescale."""
    where, given = as_written(path), dimension.model_fields_set
    if given & {"low", "high"} and ("low" not in given or "high" not in given):
        yield path, f"{where} has only one of low and high; give both"
    kinds = [kind for kind in ("low", "choices", "timescale", "value") if kind in given]
    if (len(kinds) != 1 and not given & {"low", "high"}) or len(kinds) > 1:
        yield (
            path,
            f"{where} takes a number, or low and high, or choices"
            + (", or timescale" if path[1] == "weight_decay" else ""),
        )
        return
    low, high = dimension.timescale or (dimension.low, dimension.high)
    if low is not None and high is not None and not low < high:
        yield path, f"{where} runs from {low:g} to {high:g}; low must be below high"
    if dimension.form != "range":
        for word in ("log", "step"):
            if word in given:
                yield (*path, word), f"{where}.{word} goes with low and high only"
    elif dimension.log and dimension.low is not None and dimension.low <= 0:
        yield (
            (*path, "low"),
            f"{where}.low is {dimension.low:g}; a log range begins above 0 (off: true makes the neutral value reachable)",
        )
    if dimension.form == "range" and dimension.log and dimension.step is not None:
        yield (*path, "step"), f"{where}.step: a log range has no steps; leave out one of log and step"
    if dimension.choices is not None and any(
        choice in dimension.choices[:i] for i, choice in enumerate(dimension.choices)
    ):
        yield (*path, "choices"), f"{where}.choices holds a value twice"


def _values(dimension: Dimension) -> list[tuple[Location, Any]]:
    if dimension.form == "choices":
        return [(("choices", index), choice) for index, choice in enumerate(dimension.choices or ())]
    bounds = {name: getattr(dimension, name) for name in ("low", "high")}
    named: list[tuple[Location, Any]] = [((name,), bound) for name, bound in bounds.items() if bound is not None]
    return named or ([((), dimension.value)] if dimension.form == "fixed" else [])


def _allowed(regularizer: Regularizer) -> str:
    name = {"dropout": "a dropout rate"}.get(regularizer.key, regularizer.key)
    return f"{name} lies in {regularizer.domain}"


# -- objective and search --------------------------------------------------------------------------------------


def _objective(objective: ObjectiveConfig, data: Any, metric: str | None, task: str | None) -> Faults:
    metric = metric or _metric_of(data, task)
    known = ["val_loss", "train_loss", "gap"]
    task = task or _task_of(data)
    named = [metric] if metric else [name for name, other in METRICS.items() if task in (None, other.task)]
    known += [f"{side}_{name}" for side in ("val", "train", "gap") for name in named]
    given = [("minimize", name) for name in objective.minimize] + [("maximize", name) for name in objective.maximize]
    given += [("constraints", name) for name in objective.constraints]
    for place, name in given:
        if name not in known:
            yield (
                ("objective", place, *([name] if place == "constraints" else [])),
                f"objective.{place} names {name!r}{nearest(name, known)}",
            )
    if len(set(objective.goals)) < len(objective.goals):
        yield ("objective",), "objective names a goal twice"
    for name, limit in objective.constraints.items():
        if limit.max is None and limit.min is None:
            yield (
                ("objective", "constraints", name),
                f"objective.constraints.{name} needs max or min, as in {{max: 0.1}}",
            )


def _task_fits(metric: str | None, task: str | None, data: Any) -> Faults:
    own = _task_of(data)
    if task is not None and own is not None and task != own:
        yield ("task",), f"task is {task!r}; these data are for {own}"
    task = task or own
    if metric is not None and task is not None and METRICS[metric].task != task:
        fitting = ", ".join(name for name, known in METRICS.items() if known.task == task)
        yield ("metric",), f"metric is {metric!r}, which is for {METRICS[metric].task}; for {task}: {fitting}"


def _search(search: Any, objective: ObjectiveConfig) -> Faults:
    for key, table in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        choice = getattr(search, key)
        if isinstance(choice, Choice):
            yield from _chosen(key, choice, table)
    pruner = search.pruner
    if len(objective.goals) > 1 and pruner is not None and not (isinstance(pruner, Choice) and pruner.name == "none"):
        yield ("search", "pruner"), "search.pruner: with several goals nothing can be pruned; leave it out or say none"


def _chosen(key: str, choice: Choice, table: Mapping[str, Any]) -> Faults:
    if choice.name not in table:
        yield ("search", key, "name"), f"search.{key} is {choice.name!r}{nearest(choice.name, table)}"
        return
    known = option_names(table[choice.name])
    for name in choice.options:
        if name == "seed":
            yield ("search", key, name), f"search.{key}.seed: it comes from the study's own `seed`"
        elif name not in known:
            yield ("search", key, name), f"search.{key}.{name} is not an option of {choice.name}{nearest(name, known)}"
    if choice.options.keys() <= known:
        try:
            _ = (
                make_sampler(choice.name, choice.options, 0, 0)
                if key == "sampler"
                else make_pruner(choice.name, choice.options, 9)
            )
        except (TypeError, ValueError) as error:
            yield ("search", key), f"search.{key}: {choice.name} refuses its options: {error}"


def _task_of(data: Any) -> str | None:
    source = DATASETS.get(data.name or "") if isinstance(data, DataConfig) else data
    return getattr(source, "task", None)


def _metric_of(data: Any, task: str | None) -> str | None:
    source = DATASETS.get(data.name or "") if isinstance(data, DataConfig) else data
    return getattr(source, "metric", None) if task in (None, _task_of(data)) else None


CHECKS: list[tuple[tuple[str, ...], Callable[..., Faults]]] = [
    (("data",), _data),
    (("model",), _model),
    (("optimizer",), _optimizer),
    (("space", "model", "task", "data"), _space),
    (("objective", "data", "metric", "task"), _objective),
    (("metric", "task", "data"), _task_fits),
    (("search", "objective"), _search),
]


def shown(value: Any) -> str:
    """A given value, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
