"""From a study's configuration to objects: data, networks and trials."""

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import lightning as L

from wdsearch.datasets import DATASETS
from wdsearch.errors import BuildError, DataError
from wdsearch.messages import shown_value
from wdsearch.population.user.data_modules import adapted
from wdsearch.population.user.framework import is_data_module, lightning_base
from wdsearch.study.check import check
from wdsearch.study.import_path import import_path
from wdsearch.study.nested import instantiated
from wdsearch.study.schema import Source, StudyConfig, TrainerConfig
from wdsearch.study.sources import builder_of, from_study, is_solo, parameters_of
from wdsearch.tasks.task import Task
from wdsearch.trial.batches import split_batch
from wdsearch.trial.loaders import epoch_length, train_eval_loader
from wdsearch.trial.recipe import Recipe


def build_data(config: StudyConfig) -> L.LightningDataModule:
    """The study's data module, set up; an own object is taken as it is. Raises BuildError.

    >>> from wdsearch.study.load import load_study
    >>> data = build_data(load_study("studies/mnist1d.yaml"))
    >>> data.inputs, data.outputs
    (40, 10)
    """
    data = config.data
    if is_data_module(data):
        module = data
    else:
        builder = import_path(data.class_path, data.folder) if data.class_path else DATASETS[str(data.name)]
        seeds = {"split_seed": data.split_seed, "seed": config.seed}
        arguments = {name: seed for name, seed in seeds.items() if name in parameters_of(builder)} | instantiated(
            builder, data.init_args, data.folder, "data"
        )
        arguments |= {name: value for name, value in _known(config).items() if name in from_study(builder)}
        module = built("data", str(data.class_path or data.name), builder, arguments, L.LightningDataModule)
    module = adapted(L.pytorch, module)
    try:
        module.prepare_data()
        module.setup("fit")
    except DataError as error:
        raise BuildError(f"data: {error}") from error
    except Exception as error:  # whatever a user's module raises
        raise BuildError(f"data: {type(module).__name__} cannot be set up: {text_of(error)}") from error
    _check_loaders(module, own_trainer=is_solo(config.model))
    return module


def _known(config: StudyConfig) -> dict[str, Any]:
    """Arguments that data may take from the rest of a study: task, need of codes for an embedding network, folder."""
    network = builder_of(config.model)
    embeds = network is not None and "categories" in parameters_of(network)
    return {"task": config.task, "codes": embeds, "folder": config.data.folder}


def built(key: str, name: str, builder: Callable[..., Any], arguments: Mapping[str, Any], kind: type) -> Any:
    """Object of a kind from a builder, which messages call `name`, for a section of the study. Raises BuildError.

    >>> from wdsearch.models import MODELS
    >>> built("model", "mlp", MODELS["mlp"], {"inputs": 2, "outputs": 1, "hidden": []}, object)
    Sequential(
      (flatten): Flatten(start_dim=1, end_dim=-1)
      (output): Linear(in_features=2, out_features=1, bias=True)
    )
    """
    try:
        instance = builder(**arguments)
    except Exception as error:  # whatever a user's constructor raises
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise BuildError(f"{key}: {name}({shown}) cannot be built: {text_of(error)}") from error
    if lightning_base(type(instance), kind.__name__) is None and not isinstance(instance, kind):
        raise BuildError(f"{key}: {name} gives {shown_value(instance)}; it must be a {kind.__module__}.{kind.__name__}")
    return instance


def _check_loaders(data: L.LightningDataModule, own_trainer: bool) -> None:
    """Raise BuildError if the data lack what a population asks of them, or, less, a Trainer of one module."""
    name = type(data).__name__
    for method in ("train_dataloader", "val_dataloader"):
        try:
            loader = getattr(data, method)()
        except Exception as error:  # whatever a user's module raises
            raise BuildError(f"data: {name}.{method}() fails: {text_of(error)}") from error
        if isinstance(loader, Mapping | list | tuple) and not own_trainer:
            raise BuildError(f"data: {name}.{method}() gives {len(loader)} loaders; it must give one")
    if own_trainer:  # training rows are tried where they are validated
        return
    try:
        epoch_length(data)
        train_eval_loader(data)
    except ValueError as error:
        raise BuildError(f"data: {error}") from error
    except Exception as error:  # whatever a user's module raises
        raise BuildError(f"data: {name}.train_eval_dataloader() fails: {text_of(error)}") from error


def check_hooks(data: L.LightningDataModule) -> None:
    """Raise BuildError if data change batches in a hook that Lightning calls for one module, and nobody for a population.

    >>> class Cropped(L.LightningDataModule):
    ...     def on_after_batch_transfer(self, batch, dataloader_idx): return batch
    >>> try:
    ...     check_hooks(Cropped())
    ... except BuildError as error:
    ...     print(error)
    data: Cropped.on_after_batch_transfer() is not called where trials share their batches; change batches in the data set, ...
    """
    for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        if getattr(type(data), hook) is not getattr(lightning_base(type(data), "LightningDataModule"), hook):
            text = f"{type(data).__name__}.{hook}() is not called where trials share their batches"
            raise BuildError(f"data: {text}; change batches in the data set, or in the loader's collate_fn")


def text_of(error: Exception) -> str:
    """Class and message of an error.

    >>> text_of(ValueError("depth is 0"))
    'ValueError: depth is 0'
    """
    return f"{type(error).__name__}: {error}"


def alone() -> list[Any]:
    """Trainer's plugin for a worker that shares its study by the storage, not its training with the other tasks of a job.

    >>> [type(plugin).__name__ for plugin in alone()]
    ['LightningEnvironment']
    """
    from lightning.pytorch.plugins.environments import LightningEnvironment

    return [LightningEnvironment()]


def check_trainer(config: StudyConfig) -> None:
    """Raise BuildError if this machine has not what the trainer is to use.

    >>> from wdsearch.study.load import load_study
    >>> check_trainer(load_study("studies/mnist1d.yaml", ["trainer.accelerator=cpu"]))
    """
    settings = config.trainer.model_dump(include={"accelerator", "devices", "precision"})
    try:
        L.Trainer(**settings, plugins=alone(), logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except Exception as error:  # Lightning raises several
        said = ", ".join(f"{key}: {value}" for key, value in settings.items())
        raise BuildError(f"trainer {{{said}}} cannot be had on this machine: {error}") from error


def population_trainer(trainer: TrainerConfig, callback: L.Callback) -> L.Trainer:
    """Trainer of a population as the study says, which goes on until no trial is left in it.

    >>> trainer = population_trainer(TrainerConfig(accelerator="cpu"), L.Callback())
    >>> trainer.max_epochs
    -1
    """
    return L.Trainer(
        max_epochs=-1,
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        precision=trainer.precision,
        callbacks=[callback],
        plugins=alone(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def build_task(config: StudyConfig, data: L.LightningDataModule) -> Task:
    """Task of a study: as the study says, else as the data say, else classification by accuracy.

    Raises BuildError, also where the rest of the study does not fit a task that only the data's target tells.

    >>> from wdsearch.study.load import load_study
    >>> config = load_study("studies/mnist1d.yaml")
    >>> task = build_task(config, DATASETS["mnist1d"]())
    >>> task.name, task.metric.name
    ('classification', 'accuracy')
    """
    own: str = getattr(data, "task", config.task or "classification")
    if config.task not in (None, own):
        raise BuildError(
            f"task is {config.task}, and {type(data).__name__} holds data for {own}; leave task out, or make the data for it"
        )
    metric = config.metric or getattr(data, "metric", None)
    try:
        scale = getattr(data, "target_scale", ())
        task = Task(
            config.task or own, metric, getattr(data, "class_weights", None), scale, _center(config.task or own, data)
        )
    except ValueError as error:
        raise BuildError(f"data: {error}") from error
    if config.task is None and not is_solo(config.model):
        known = dict(config) | {"task": task.name, "metric": task.metric.name}
        if faults := [text for _, text in check(known)]:
            raise BuildError(f"the data make this a {task.name} with {task.metric.name}: {'; '.join(faults)}")
    return task


def _center(task: str, data: L.LightningDataModule) -> tuple[float, ...]:
    """Mean of some training targets, about which R² is computed; none of data that standardise them, or are not read so."""
    if task != "regression" or getattr(data, "target_scale", None):
        return ()
    try:
        targets = split_batch(next(iter(train_eval_loader(data))))[1]
        return tuple(targets.reshape(len(targets), -1).double().mean(0).tolist())
    except Exception:  # whatever a user's loader raises; it is told where the data are examined
        return ()


def build_recipe(config: StudyConfig) -> Recipe:
    """The optimizer, the schedule and which parameters decay, as all trials share them.

    >>> from wdsearch.study.load import load_study
    >>> recipe = build_recipe(load_study("studies/mnist1d.yaml"))
    >>> recipe.optimizer, recipe.schedule, recipe.decay
    ('adamw', 'cosine', 'weights')
    """
    optimizer, decay = config.optimizer, config.optimizer.decay
    return Recipe(
        optimizer.name,
        optimizer.schedule,
        optimizer.warmup,
        decay=decay.rule,
        include=tuple(decay.include),
        exclude=tuple(decay.exclude),
        groups=config.groups,
        **optimizer.options,
    )


def describe_data(config: StudyConfig, data: L.LightningDataModule) -> dict[str, str]:
    """The data set as trackers record it: name, digest of its rows, where it comes from, rows of each part.

    >>> from wdsearch.study.load import load_study
    >>> config = load_study("studies/mnist1d.yaml")
    >>> description = describe_data(config, build_data(config))
    >>> description["name"], description["schema"]
    ('mnist1d', '{"inputs": 40, "outputs": 10}')
    """
    parts = getattr(data, "parts", {})
    digest = blake2b(digest_size=8)
    for part in parts.values():
        for some in part.fingerprint():
            digest.update(some)
    source = config.data if isinstance(config.data, Source) else None
    name = (source.name or source.class_path) if source else None
    profile = {"rows": {part: len(rows) for part, rows in parts.items()}}
    return {
        "name": name or type(data).__name__,
        "digest": digest.hexdigest(),
        "source_type": "code",
        "source": json.dumps({"class": f"{type(data).__module__}.{type(data).__qualname__}"}),
        "schema": json.dumps({name: getattr(data, name) for name in ("inputs", "outputs") if hasattr(data, name)}),
        "profile": json.dumps(profile),
    }
