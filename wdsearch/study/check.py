"""Checks what no single key can say: keys of a study fit each other, the regularizers, models, data and Optuna."""

import inspect
from collections.abc import Mapping
from typing import Any

import lightning as L
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from pydantic import BaseModel, ValidationError

from wdsearch.messages import nearest, shown_path, shown_value
from wdsearch.optimizers import OPTIMIZERS
from wdsearch.plugins import table_of
from wdsearch.population.user.cadence import why_unvalidated
from wdsearch.strategies.pruners import PRUNERS, make_pruner
from wdsearch.strategies.samplers import SAMPLERS, make_sampler, options_of
from wdsearch.study.annotations import keyword_only, option_faults
from wdsearch.study.check_space import check_space
from wdsearch.study.cron import LONGEST_FAMILY, ScheduleConfig
from wdsearch.study.file import Location
from wdsearch.study.schema import Choice, ObjectiveConfig, OptimizerConfig, SearchConfig, StudyConfig, TrainerConfig
from wdsearch.study.sources import Faults, attribute_of_data, check_data, check_model, is_solo
from wdsearch.study.validation import invalid_keys
from wdsearch.tasks.metrics import METRICS, reported
from wdsearch.tasks.task import LOSSES

TAKEN = {
    "accelerator", "barebones", "callbacks", "devices", "enable_checkpointing", "enable_model_summary",
    "enable_progress_bar", "fast_dev_run", "logger", "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps",
    "model_registry", "num_nodes", "precision", "profiler",
}  # fmt: skip
"""Arguments of lightning's Trainer that are not for `trainer.options`."""


def check(sections: Mapping[str, Any]) -> Faults:
    """Faults of the sections that are well formed by themselves, each with the key that it is about.

    >>> [text for _, text in check({"trainer": TrainerConfig(devices=2)})]
    ['trainer.devices is 2; a population trains on one device; several are for an own LightningModule (or start several workers)']
    """
    data, model, metric = (sections.get(name) for name in ("data", "model", "metric"))
    own_task = attribute_of_data(data, "task")
    own_task = own_task if own_task in LOSSES else None
    task = sections.get("task") or own_task
    if "data" in sections:
        yield from check_data(data)
    if "model" in sections:
        yield from check_model(model)
    if "optimizer" in sections:
        yield from _optimizer(sections["optimizer"])
    if "space" in sections:
        yield from check_space(sections["space"], model, task)
    if "trainer" in sections:
        budget = sections.get("budget")
        yield from _trainer(sections["trainer"], is_solo(model), budget.epochs if budget else 0)
    if "objective" in sections and not is_solo(model):
        own_metric = attribute_of_data(data, "metric") if task == own_task else None
        yield from _objective(sections["objective"], metric or own_metric, task)
    if metric and task and METRICS[metric].task != task:
        fitting = ", ".join(name for name, known in METRICS.items() if known.task == task)
        yield ("metric",), f"metric is {metric!r}, which is for {METRICS[metric].task}; for {task}: {fitting}"
    if "search" in sections:
        yield from _search(sections["search"], sections.get("objective"))
    if sections.get("tracking"):
        yield from _tracking(sections["tracking"])
    if sections.get("schedule"):
        yield from _schedule(sections["schedule"], sections.get("study", ""))


def settled(config: StudyConfig) -> StudyConfig:
    """Configuration with the defaults that depend on several sections: user-defined modules are asked for one at a time.

    >>> from wdsearch.study.load import load_study
    >>> config = load_study("studies/mnist1d.yaml")
    >>> settled(config) is config  # a network, not a LightningModule
    True
    """
    if config.search.batch is not None or not is_solo(config.model):
        return config
    return config.model_copy(update={"search": config.search.model_copy(update={"batch": 1})})


def _optimizer(optimizer: OptimizerConfig) -> Faults:
    record, options = OPTIMIZERS[optimizer.name], optimizer.options
    for option in [name for name in options if name not in record.options]:
        owner = next(key for key, other in OPTIMIZERS.items() if option in other.options)
        text = f"belongs to {owner}; this study uses {optimizer.name}, which takes {', '.join(record.options)}"
        yield ("optimizer", option), f"optimizer.{option} {text}"
    defaults = {name: option.default for name, option in record.options.items()}
    if fault := record.fault(defaults | options):
        yield ("optimizer", fault[0]), f"optimizer.{fault[0]} {fault[1]}"


def _objective(objective: ObjectiveConfig, metric: str | None, task: str | None) -> Faults:
    metrics = reported(metric) if metric else [name for name, known in METRICS.items() if task in (None, known.task)]
    known = ["val_loss", "train_loss", "gap", *(f"{side}_{m}" for side in ("val", "train", "gap") for m in metrics)]
    for location, name in _named(objective):
        if name not in known:
            yield location, f"{shown_path(location[:2])} names {shown_value(name)}{nearest(name, known)}"
    if {"minimize", "maximize"} & objective.model_fields_set and not [*objective.minimize, *objective.maximize]:
        yield ("objective",), "objective has no goal; name one, as in minimize: val_loss"
    if len(set(objective.goals)) < len(objective.goals):
        yield ("objective",), "objective names a goal twice"
    for name, limit in objective.constraints.items():
        location = ("objective", "constraints", name)
        if limit.max is None and limit.min is None:
            yield location, f"{shown_path(location)} needs max or min, as in {{max: 0.1}}"
        elif limit.max is not None and limit.min is not None and limit.max < limit.min:
            yield (
                location,
                f"{shown_path(location)} allows at most {limit.max:g} and at least {limit.min:g}: nothing at all",
            )


def _trainer(trainer: TrainerConfig, solo: bool, epochs: int) -> Faults:
    """Several devices and further arguments are for modules with a Trainer of their own, which validates the last epoch."""
    if trainer.devices > 1 and not solo:
        text = "a population trains on one device; several are for an own LightningModule"
        yield ("trainer", "devices"), f"trainer.devices is {trainer.devices}; {text} (or start several workers)"
    for name in trainer.options if not solo else ():
        yield (
            ("trainer", "options", name),
            f"trainer.options.{name}: options are for an own LightningModule; leave it out",
        )
    known = set(inspect.signature(L.Trainer).parameters) - TAKEN
    for name in sorted(trainer.options.keys() - known) if solo else ():
        why = (
            "wdsearch sets it itself" if name in TAKEN else f"no argument of lightning's Trainer{nearest(name, known)}"
        )
        yield ("trainer", "options", name), f"trainer.options.{name}: {why}"
    if solo and (fault := why_unvalidated(trainer.options, epochs)):
        name, why = fault
        yield ("trainer", "options", name), f"trainer.options.{name} {why}"


def _named(objective: ObjectiveConfig) -> list[tuple[Location, str]]:
    """Every result that an objective names, with its key."""
    goals: list[tuple[Location, str]] = [
        (("objective", key, index), name)
        for key in ("minimize", "maximize")
        for index, name in enumerate(getattr(objective, key))
    ]
    return [*goals, *((("objective", "constraints", name), name) for name in objective.constraints)]


def _search(search: SearchConfig, objective: ObjectiveConfig | None) -> Faults:
    sampler, pruner = search.sampler, search.pruner
    if isinstance(sampler, Choice):
        yield from _chosen("sampler", sampler, SAMPLERS)
    elif sampler is not None and not isinstance(sampler, BaseSampler):
        yield (
            ("search", "sampler"),
            f"search.sampler is {shown_value(sampler)}; allowed is a name or a sampler of Optuna's",
        )
    if isinstance(pruner, Choice):
        yield from _chosen("pruner", pruner, PRUNERS)
    elif pruner is not None and not isinstance(pruner, BasePruner):
        yield ("search", "pruner"), f"search.pruner is {shown_value(pruner)}; allowed is a name or a pruner of Optuna's"
    none = pruner is None or (isinstance(pruner, Choice) and pruner.name == "none")
    if objective and len(objective.goals) > 1 and not none:
        yield ("search", "pruner"), "search.pruner: with several goals nothing can be pruned; leave it out or say none"


def _chosen(key: str, choice: Choice, table: Mapping[str, Any]) -> Faults:
    if choice.name not in table:
        yield ("search", key, "name"), f"search.{key} is {shown_value(choice.name)}{nearest(choice.name, table)}"
        return
    faults = [*_options(key, choice, options_of(table[choice.name]))]
    yield from faults
    if not faults:
        try:
            if key == "sampler":
                make_sampler(choice.name, choice.options, 0, 0)
            else:
                make_pruner(choice.name, choice.options, 9)
        except Exception as error:  # whatever a constructor of Optuna's raises at an option
            yield ("search", key), f"search.{key}: {choice.name} refuses its options: {error}".splitlines()[0]


def _options(key: str, choice: Choice, known: Mapping[str, Any]) -> Faults:
    options = choice.options
    if "seed" in options:
        del options["seed"]
        yield ("search", key, "seed"), f"search.{key}.seed: it comes from the study's own seed"
    yield from option_faults(("search", key), choice.name, options, known)


def _tracking(tracking: Choice) -> Faults:
    trackers = table_of("trackers")
    if tracking.name not in trackers:
        yield ("tracking", "name"), f"tracking is {shown_value(tracking.name)}{nearest(tracking.name, trackers)}"
        return
    yield from option_faults(("tracking",), tracking.name, tracking.options, keyword_only(trackers[tracking.name]))


def _schedule(schedule: ScheduleConfig, study: str) -> Faults:
    if len(study) > LONGEST_FAMILY:
        yield ("study",), f"study has {len(study)} letters; with a schedule at most {LONGEST_FAMILY}: a date is added"
    engines = table_of("engines")
    if schedule.on not in engines:
        yield ("schedule", "on"), f"schedule.on is {shown_value(schedule.on)}{nearest(schedule.on, engines)}"
        return
    yield from _engine_options(schedule, engines[schedule.on].options)


def _engine_options(schedule: ScheduleConfig, kind: type[BaseModel]) -> Faults:
    def unknown(location: Location) -> str:
        hint = nearest(str(location[-1]), kind.model_fields)
        return f"{shown_path(location)} is not an option of {schedule.on}{hint}"

    try:
        kind.model_validate(schedule.options)
    except ValidationError as error:
        yield from invalid_keys(error, ("schedule", "options"), unknown)
