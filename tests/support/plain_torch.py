"""Texts of trials' trainings, run by plain torch on the trials' own batches and noise, and how far they are from the trials."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from support.training import train_alone, train_fused

from wdsearch.noise import NoiseStream
from wdsearch.search.training_facts import training_facts
from wdsearch.storage.training import Training
from wdsearch.storage.training_text import training_text
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import load_study
from wdsearch.study.space import Configuration
from wdsearch.trial.dropout import replace_dropout
from wdsearch.trial.loaders import batches_of

SMALL = {
    "study": "text",
    "data": {"name": "digits", "init_args": {"batch_size": 200}},
    "model": {"name": "mlp", "init_args": {"hidden": [8]}},
    "budget": {"trials": 1, "epochs": 2},
    "trainer": {"accelerator": "cpu", "precision": 64},
}


class Batches:
    """Training batches of a study, in 64 bits if it `doubles` them, in its order, anew for each epoch; sets the noise of each."""

    def __init__(self, data: Any, streams: Mapping[str, NoiseStream], doubles: bool) -> None:
        self.data, self.streams, self.doubles, self.epoch = data, streams, doubles, 0

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(batches_of(self.data.train_dataloader(), 0, self.epoch)):
            for stream in self.streams.values():
                stream.at(self.epoch, index)
            yield doubled(batch) if self.doubles else batch
        self.epoch += 1


def doubled(batch: Any) -> Any:
    """A batch in 64 bits."""
    return apply_to_collection(batch, torch.Tensor, lambda x: x.double() if x.is_floating_point() else x)


def wide(value: torch.Tensor) -> torch.Tensor:
    """A tensor in 64 bits, the parts of a complex one side by side."""
    return (torch.view_as_real(value) if value.is_complex() else value).double()


def is_double(factory: TrialFactory) -> bool:
    """True for a study in 64 bits."""
    return factory.config.trainer.precision == 64


def factory_of(strengths: Mapping[str, Any], **changes: Any) -> TrialFactory:
    """Factory of a small study in which these strengths are fixed."""
    space = {"lr": {"low": 1e-4, "high": 1e-2}} | dict(strengths)
    config = load_study({**SMALL, "space": space} | changes)
    return TrialFactory(config, build_data(config))


def training_of(factory: TrialFactory, configuration: Configuration, **changes: Any) -> Training:
    """A trial's training as the recommendation describes it."""
    config, recipe = factory.config, factory.recipe
    optimizer = {"name": recipe.optimizer, **recipe.options, "schedule": recipe.schedule, "warmup": recipe.warmup}
    own = {
        "title": "a trial", "init_seed": 0, "optimizer": optimizer | {"lr": configuration.lr},
        "strengths": configuration.strengths, "model": {}, "epochs": config.budget.epochs,
        "precision": config.trainer.precision, "facts": training_facts(factory, configuration),
    }  # fmt: skip
    return Training(**own | changes)


def run_text(text: str, factory: TrialFactory, configuration: Configuration) -> dict[str, torch.Tensor]:
    """Weights of a study's network after the text's training, with the trial's noise instead of torch's."""
    streams = {key: NoiseStream(factory.config.seed, key) for key in ("dropout", "input_noise")}
    network = replace_dropout(
        factory.network(Configuration(configuration.lr, {}, configuration.model)), streams["dropout"]
    )
    names: dict[str, Any] = {}
    exec(text, names)
    validation = [doubled(batch) if is_double(factory) else batch for batch in factory.data.val_dataloader()]
    arguments = [validation] if "validation_loss" in names else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", streams["input_noise"].normal)
        trained = names["train"](network, Batches(factory.data, streams, is_double(factory)), *arguments)
    return {name: wide(value) for name, value in trained.state_dict().items() if not name.endswith("rate")}


def trained(factory: TrialFactory, configuration: Configuration, fuse: bool = True) -> dict[str, torch.Tensor]:
    """Weights by which the trial is judged: of a population, or of plain Lightning."""
    module, epochs = factory.module(configuration), factory.config.budget.epochs
    if fuse:
        precision = "64-true" if is_double(factory) else str(factory.config.trainer.precision)
        state = train_fused({0: module}, factory.data, epochs, precision=precision).states[0]
    else:
        train_alone(module, factory.data, epochs)
        state = module.state_dict()
    return plain(state)


def plain(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A trial's state dict as that of the user's network."""
    own = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    return {name: wide(value) for name, value in own.items() if not name.endswith("rate")}


def distance(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """Largest absolute difference of two networks' weights and buffers."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def text_of(factory: TrialFactory, configuration: Configuration, **changes: Any) -> str:
    """Text of a trial's training."""
    return training_text(training_of(factory, configuration, **changes))
