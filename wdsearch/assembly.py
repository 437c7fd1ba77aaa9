"""From a study's configuration to objects: data, networks and trials."""

import copy
import inspect
import json
import math
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import lightning as L
import torch
from torch import nn

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.module import RegularizedModule
from wdsearch.noise import derive_seed
from wdsearch.recipe import Recipe
from wdsearch.regularizers import torch_equivalents
from wdsearch.schema import Source, StudyConfig
from wdsearch.sources import import_path
from wdsearch.space import Configuration
from wdsearch.tasks import Task


class BuildError(Exception):
    """Data or a network that cannot be built as the study says."""


def build_data(config: StudyConfig) -> L.LightningDataModule:
    """The study's data module, set up; an own object is taken as it is. Raises BuildError."""
    data = config.data
    if isinstance(data, L.LightningDataModule):
        module = data
    elif data.class_path is not None:
        module = _built("data", data.class_path, import_path(data.class_path), data.init_args)
    else:
        arguments = {"split_seed": data.split_seed, "seed": config.seed} | data.init_args
        module = _built("data", str(data.name), DATASETS[str(data.name)], arguments)
    try:
        module.prepare_data()
        module.setup("fit")
    except Exception as error:  # whatever a user's module raises
        raise BuildError(f"data: {type(module).__name__} cannot be set up: {_text(error)}") from error
    return module


def _built(key: str, name: str, builder: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return builder(**arguments)
    except Exception as error:  # whatever a user's constructor raises
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise BuildError(f"{key}: {name}({given}) cannot be built: {_text(error)}") from error


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def build_task(config: StudyConfig, data: L.LightningDataModule) -> Task:
    """What is learned: as the study says, else as the data say, else classification by accuracy."""
    own: str = getattr(data, "task", "classification")
    fits = config.task in (None, own)
    return Task(config.task or own, config.metric or (getattr(data, "metric", None) if fits else None))


def build_recipe(config: StudyConfig) -> Recipe:
    """The optimizer and schedule that all trials share."""
    given = config.optimizer.model_dump(exclude={"name", "lr"}, exclude_none=True)
    return Recipe(config.optimizer.name, **given)


def describe_data(config: StudyConfig, data: L.LightningDataModule) -> dict[str, str]:
    """The data set as MLflow records it: name, digest of its rows, where it comes from, rows of each part."""
    parts = getattr(data, "parts", {})
    digest = blake2b(digest_size=8)
    for part in parts.values():
        for tensor in part.tensors:
            digest.update(tensor.contiguous().numpy().tobytes())
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


class TrialFactory:
    """Builds trials that differ in nothing but their configuration: same initial weights for the same network."""

    def __init__(self, config: StudyConfig, data: L.LightningDataModule) -> None:
        self.config, self.data = config, data
        self.recipe, self.task = build_recipe(config), build_task(config, data)
        factors = self.recipe.factors(len(data.train_dataloader()) * config.budget.epochs)
        self.rate_sum, self.largest_factor = sum(factors), max(factors)

    def module(self, configuration: Configuration) -> RegularizedModule:
        """One trial of age 0."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.config.seed, "weights"))
            network = self._network(configuration.model)
        return RegularizedModule(
            network, configuration.strengths, configuration.lr, self.recipe, self.task, self.config.seed
        )

    def _network(self, arguments: Mapping[str, Any]) -> nn.Module:
        model = self.config.model
        if isinstance(model, nn.Module):
            return copy.deepcopy(model)
        if not isinstance(model, Source):
            name = getattr(model, "__qualname__", type(model).__name__)
            return _built("model", name, model, self._shape(model) | dict(arguments))
        builder = import_path(model.class_path) if model.class_path else MODELS[str(model.name)]
        name = str(model.class_path or model.name)
        return _built("model", name, builder, self._shape(builder) | model.init_args | dict(arguments))

    def _shape(self, builder: Callable[..., nn.Module]) -> dict[str, int]:
        names = inspect.signature(builder).parameters
        return {name: getattr(self.data, name) for name in ("inputs", "outputs") if name in names}

    def params(self, configuration: Configuration) -> dict[str, float | int | str]:
        """What identifies a trial to people: strengths and rate, with log10 where it exists, timescale, torch's words."""
        params: dict[str, Any] = {"lr": configuration.lr} | configuration.strengths
        params |= {f"log10_{key}": math.log10(value) for key, value in params.items() if 0 < value < math.inf}
        if configuration.strengths.get("weight_decay"):
            decay = configuration.strengths["weight_decay"]
            params["weight_decay.timescale"] = 1.0 / (configuration.lr * self.rate_sum * decay)
        equivalents = torch_equivalents(configuration.strengths, self.recipe.optimizer)
        params |= {f"torch.{key}": text for key, text in equivalents.items()}
        return params | {f"model.{key}": str(value) for key, value in configuration.model.items()}
