"""Builds a study's trials, and finds out how their network can be trained."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import lightning as L
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from wdsearch.errors import BuildError
from wdsearch.groups import split_key
from wdsearch.noise import derive_seed
from wdsearch.optimizers import OPTIMIZERS
from wdsearch.population.fusibility import slow_when_fused, step_alone, why_alone
from wdsearch.population.last_batch import lone_row_note
from wdsearch.population.memory import device_name, device_of
from wdsearch.population.user.cadence import why_unvalidated
from wdsearch.population.user.framework import is_lightning_module
from wdsearch.population.user.model_kinds import is_regularized_module
from wdsearch.population.user.random_state import seeded
from wdsearch.regularizers import torch_equivalents
from wdsearch.study.build import build_recipe, build_task, built, check_hooks, describe_data, text_of
from wdsearch.study.nested import instantiated, with_values
from wdsearch.study.schema import Source, StudyConfig
from wdsearch.study.sources import builder_of, is_solo, shape_arguments
from wdsearch.study.space import Configuration, baseline, possible, repetition, unequal
from wdsearch.trial.batches import (
    Batch,
    BatchError,
    changed,
    first_rows,
    fitting,
    remedy_of,
    rows_of,
    shapes_of,
    split_batch,
)
from wdsearch.trial.copying import CopyError, copied
from wdsearch.trial.dropout import with_rates_of
from wdsearch.trial.dropout_in_use import DropoutInUse, dropout_in_use, dropout_notes, inert
from wdsearch.trial.function_measures import scale_invariant_share
from wdsearch.trial.loaders import augments_itself, epoch_length
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.own_loss import own_loss_note
from wdsearch.trial.parameters import check_names

PROBED_ROWS, PROBED_BATCHES = 64, 3
Answer = TypeVar("Answer")
"""Rows and number of the batches on which a network is tried: enough to see what it does."""


class TrialFactory:
    """Builds trials that differ in nothing but their configuration: same initial weights for the same network."""

    def __init__(self, config: StudyConfig, data: L.LightningDataModule) -> None:
        self.config, self.data = config, data
        self.recipe, self.task = build_recipe(config), build_task(config, data)
        self.batches = self._asked(epoch_length, 0)
        factors = self.recipe.factors(max(1, self.batches) * config.budget.epochs)
        self.rate_sum, self.largest_factor = sum(factors), max(factors)
        self.config, self._cut = possible(config, self.rate_sum, self.largest_factor)
        self.augmented = self._asked(augments_itself, False)
        self._reasons: dict[str, str | None] = {}
        self._is_double = False
        if not self.solo:
            check_hooks(data)

    def _asked(self, question: Callable[[L.LightningDataModule], Answer], unknown: Answer) -> Answer:
        """Answer of the data; of those of a user-defined module, which may take rows that nobody else can draw, or `unknown`."""
        try:
            return question(self.data)
        except Exception:  # whatever a user's loader raises
            if not self.solo:
                raise
            return unknown

    @cached_property
    def dataset(self) -> dict[str, str]:
        """The data set as trackers record it; all rows are read for its digest, once."""
        return describe_data(self.config, self.data)

    @property
    def solo(self) -> bool:
        """True if trials are user-defined LightningModules, each with a Trainer of its own."""
        return is_solo(self.config.model)

    @property
    def metric(self) -> str:
        """Metric that is reported beside the loss; `` if the user-defined module says."""
        return "" if self.solo else self.task.metric.name

    def trial(self, configuration: Configuration) -> L.LightningModule:
        """One trial of age 0. Raises BuildError."""
        return self._own_module(configuration) if self.solo else self.module(configuration)

    @property
    def max_fused(self) -> int:
        """Most trials in a fused call if memory suffices: as the study says, or all that train, which is the fastest."""
        if self.solo or self.why_alone(baseline(self.config).model):
            return 1
        trials, most = self.config.most_training, self.config.trainer.population
        return trials if most == "auto" else min(trials, most)

    def training(self, max_fused: int) -> str:
        """Text on how trials are trained on this machine: what each `auto` became."""
        trainer, alone = self.config.trainer, self.why_alone(baseline(self.config).model)
        device = device_name(trainer.accelerator)
        where = f"{trainer.devices} × {device}" if trainer.devices > 1 else device
        if device == "cpu":
            count = torch.get_num_threads() if trainer.threads == "auto" else trainer.threads
            where += f" with {count} thread{'s' if count > 1 else ''}"
        bits = trainer.precision if isinstance(trainer.precision, str) else f"{trainer.precision} bits"
        if self._is_double and bits == "32 bits":
            bits = "64 bits, as the network is"
        way = f"one trial after another, for {alone}" if alone else f"fused, up to {max_fused} trials in a call"
        return f"on {where}, in {bits}; {way}"

    def checked_baseline(self) -> L.LightningModule:
        """The baseline's trial; raises StudyFileError and BuildError if the space does not fit the network."""
        trainer = self.config.trainer
        batches = self.batches if trainer.devices == 1 else 0  # several share the batches of an epoch
        if self.solo and (fault := why_unvalidated(trainer.options, self.config.budget.epochs, batches)):
            raise BuildError(f"trainer.options.{fault[0]} {fault[1]}")
        trial = self.trial(baseline(self.config))
        if isinstance(trial, RegularizedModule):
            check_names(trial)
        return trial

    def _own_module(self, configuration: Configuration) -> L.LightningModule:
        """A user's LightningModule, with its arguments from the space."""
        rate = {"lr": configuration.lr} if "lr" in self.config.space else {}
        with seeded(derive_seed(self.config.seed, "weights")):
            module = self._network(configuration.model | configuration.strengths | rate, {})
        if not is_lightning_module(module):
            raise BuildError(f"model: {self._name()} gives a {type(module).__name__}; it must give a LightningModule")
        return module  # type: ignore[return-value]

    def module(self, configuration: Configuration) -> RegularizedModule:
        """One trial of a network, or of a subclass of ours. Raises BuildError."""
        network, own = self._initial(configuration), self._own_arguments(configuration)
        module = network if isinstance(network, RegularizedModule) else RegularizedModule(network, **own)
        if self.task.class_weights and type(module).loss is not RegularizedModule.loss:
            text = f"{type(module).__name__} has a loss of its own, which would not know of them"
            raise BuildError(f"data: class_weight weights the loss of wdsearch, but {text}; leave class_weight out")
        return module

    def network(self, configuration: Configuration) -> nn.Module:
        """The user's own network of a trial of age 0, with the trial's rates of dropout; a user-defined module as it is.

        Raises BuildError.
        """
        network = self.trial(configuration) if self.solo else self._initial(configuration)
        if self.solo or isinstance(network, RegularizedModule):
            return network
        return with_rates_of(self.module(configuration).network, network)

    def _own_arguments(self, configuration: Configuration) -> dict[str, Any]:
        """Arguments of a trial beside its network."""
        return {
            "strengths": configuration.strengths,
            "lr": configuration.lr,
            "recipe": self.recipe,
            "task": self.task,
            "seed": self.config.seed,
        }

    def _initial(self, configuration: Configuration) -> nn.Module:
        """The network as its author wrote it, with its initial weights; of a subclass of ours the trial. Raises BuildError."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.config.seed, "weights"))
            network = self._network(configuration.model, self._own_arguments(configuration))
            if any(isinstance(value, UninitializedParameter) for value in network.parameters()):
                self._initialize(network)
        self._refuse_lightning_module(network)
        return network

    def _refuse_lightning_module(self, network: nn.Module) -> None:
        """Raise BuildError for a LightningModule that comes from a function which does not say so."""
        name, kind = self._name(), type(getattr(network, "_orig_mod", network)).__name__
        if isinstance(network, RegularizedModule):
            if not is_regularized_module(builder_of(self.config.model)):
                raise BuildError(f"model: {name} gives a {kind}, whose strengths nobody sets; give the class itself")
        elif is_lightning_module(network):
            text = "give the class itself, or annotate the function"
            raise BuildError(f"model: {name} gives a LightningModule, {kind}; {text}: def {name}(...) -> {kind}")

    def _name(self) -> str:
        model = self.config.model
        if isinstance(model, Source):
            return str(model.class_path or model.name)
        return getattr(getattr(model, "func", model), "__qualname__", type(model).__name__)

    def _initialize(self, network: nn.Module) -> None:
        """Let lazy layers see a batch, by which they choose their sizes."""
        batch = self.batch()
        try:
            inputs = fitting(split_batch(batch)[0], network.forward)
            with torch.no_grad():
                network.eval()(*inputs.args, **inputs.kwargs)
        except Exception as error:  # whatever a user's network raises
            raise BuildError(_failure(error, batch)) from error
        network.train()

    def _network(self, arguments: Mapping[str, Any], own: Mapping[str, Any]) -> nn.Module:
        """The network; of a subclass of RegularizedModule the whole trial, which takes what such a module takes as well."""
        model = self.config.model
        if isinstance(model, nn.Module):
            try:
                return copied(model)
            except CopyError as error:
                text = f"each trial trains a copy of the object that is the model, and {error}"
                raise BuildError(f"model: {text}; give its class instead, or a function that builds it") from error
        builder = builder_of(model)
        assert builder is not None
        init_args, folder = (model.init_args, model.folder) if isinstance(model, Source) else ({}, None)
        whole = with_values(init_args, arguments) if self.solo else init_args | dict(arguments)
        more = own if is_regularized_module(builder) else {}
        known = shape_arguments(builder, self.data) | instantiated(builder, whole, folder) | dict(more)
        return built("model", self._name(), builder, known, nn.Module)

    # -- fused or one after another ------------------------------------------------------------------------------

    def why_alone(self, arguments: Mapping[str, Any]) -> str | None:
        """Reason why trials with these arguments of the network are trained one after another; None if they are fused.

        Raises BuildError if their network does not take a batch of the data.
        """
        if self.solo:
            return "the model is a LightningModule with a Trainer of its own"
        key = repr(sorted(arguments.items()))
        if key not in self._reasons:
            self._reasons[key] = self._try(arguments)
        return self._reasons[key]

    def _try(self, arguments: Mapping[str, Any]) -> str | None:
        tried, whole = self.module(unequal(self.config, arguments)[0]), self.batch()
        batch, most = first_rows(whole, PROBED_ROWS), PROBED_ROWS
        self._is_double = any(value.dtype == torch.float64 for value in tried.parameters())
        try:
            step_alone(tried, batch)
        except Exception:  # whatever a user's network raises: its rows may belong together, as those of a graph
            batch, most = whole, rows_of(whole)
            try:
                step_alone(tried, whole)
            except Exception as error:
                raise BuildError(_failure(error, whole)) from error
        slow = slow_when_fused(tried, batch, rows_of(whole), device_of(self.config.trainer.accelerator))
        modules = [self.module(one) for one in unequal(self.config, arguments)]
        return slow or why_alone(modules, *self._probed_batches(most))

    def _probed_batches(self, most: int) -> list[Batch]:
        """At most so many rows of a few batches that differ."""
        loader = islice(self.data.train_dataloader(), PROBED_BATCHES)
        batches = [first_rows(self._as_trained(batch), most) for batch in loader]
        rows = rows_of(batches[0])
        backwards = changed(batches[0], lambda x: x.flip(0) if x.ndim and len(x) == rows else x)
        return batches if len(batches) > 1 else [*batches, backwards]

    @cached_property
    def _dropout(self) -> tuple[RegularizedModule, DropoutInUse] | None:
        """The baseline with what drops in it; None where that cannot be tried."""
        module = None if self.solo else self.module(baseline(self.config))
        use = module and self._dropout_in(module)
        return (module, use) if module and use else None

    def _dropout_in(self, module: RegularizedModule) -> DropoutInUse | None:
        try:
            return dropout_in_use(module, self.batch())
        except Exception:  # a network that cannot be called so is searched all the same
            return None

    def drops(self, configuration: Configuration) -> bool:
        """True if dropout reaches a layer or a function of a trial's network."""
        strengths = {**configuration.strengths, "dropout": 0.0}
        module = self.module(Configuration(configuration.lr, strengths, configuration.model))
        use = self._dropout_in(module)
        return bool(module.layers_of("dropout") or (use and use.functions))

    @property
    def dropout_functions(self) -> tuple[str, ...]:
        """Layers in which functions drop at the searched rate."""
        return self._dropout[1].functions if self._dropout else ()

    @property
    def notes(self) -> list[str]:
        """Sentences on ranges that were cut, strengths that act nowhere or in part, a loss of the network's own, and batches
        that do not suit; raises BuildError for those that fail.
        """
        dropout = dropout_notes(*self._dropout) if self._dropout else []
        return [*self._cut, *repetition(self.config), *(f"model: {text}" for text in dropout), *self._of_batches]

    @cached_property
    def _of_batches(self) -> list[str]:
        """Sentences on a loss of the network's own, and on a last batch of one row."""
        if self.solo:
            return []
        notes = [lone_row_note(lambda: self.module(baseline(self.config)), self.data.train_dataloader(), self.batch)]
        with suppress(Exception):  # a network that cannot be called with its targets is trained all the same
            notes.append(own_loss_note(self.module(baseline(self.config)), self.batch()))
        return list(filter(None, notes))

    @property
    def inert(self) -> list[str]:
        """Keys of strengths that act on nothing in the baseline's network."""
        return inert(*self._dropout) if self._dropout else []

    def scale_invariant_share(self) -> float:
        """Share of the baseline's decayed weights whose scale norm layers take out; 0 where that cannot be tried."""
        with suppress(Exception):  # a network that cannot be called so is searched all the same
            if not self.solo:
                return scale_invariant_share(self.module(baseline(self.config)), first_rows(self.batch(), PROBED_ROWS))
        return 0.0

    def batch(self) -> Batch:
        """First training batch, as a network gets it when it is tried."""
        return self._as_trained(next(iter(self.data.train_dataloader())))

    def _as_trained(self, batch: Batch) -> Batch:
        """A batch as a network gets it; in 64 bits the Trainer converts both, and the network is tried in 32."""
        if not str(self.config.trainer.precision).startswith("64"):
            return batch
        return changed(batch, lambda x: x.float() if x.dtype == torch.float64 else x)

    def params(self, configuration: Configuration) -> dict[str, float | int | str]:
        """Parameters by which people know a trial: strengths and rate, with log10 where it exists, timescale, torch's words."""
        rate = {} if self.solo and "lr" not in self.config.space else {"lr": configuration.lr}
        params: dict[str, Any] = rate | configuration.strengths
        params |= {f"log10_{key}": math.log10(value) for key, value in params.items() if 0 < value < math.inf}
        if self.solo:  # what it makes of its arguments is its own
            return params | {key: str(value) for key, value in configuration.model.items()}
        for key, value in configuration.strengths.items():
            if split_key(key)[0] == "weight_decay" and value:
                params[f"{key}.timescale"] = 1.0 / (configuration.lr * self.rate_sum * value)
        words = OPTIMIZERS[self.recipe.optimizer].words
        equivalents = torch_equivalents(configuration.strengths, words)
        params |= {f"torch.{key}": text for key, text in equivalents.items()}
        return params | {f"model.{key}": str(value) for key, value in configuration.model.items()}


def _failure(error: Exception, batch: Batch) -> str:
    """Message on an error of a network that is tried on a batch."""
    said = str(error) if isinstance(error, BatchError) else text_of(error)
    return f"model: the network fails on a batch of {shapes_of(batch)}: {said}{remedy_of(error, batch)}"
