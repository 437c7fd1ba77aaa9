"""The text of a trial's training, run by plain torch on the trial's batches, gives the trial's weights.

All in 64 bits and with the trial's own draws for dropout and input noise, so that differences are those of rounding.
"""

import re
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import lightning as L
import pytest
import torch
from support.plain_torch import distance, factory_of, plain, run_text, text_of, trained, training_of
from support.training import train_fused
from torch import nn
from torch.utils.data import DataLoader

from wdsearch.optimizers import OPTIMIZERS
from wdsearch.regularizers import REGULARIZERS, torch_equivalents
from wdsearch.storage.training_text import training_text
from wdsearch.study.space import Configuration
from wdsearch.trial.result import STOPPED_EARLY

ROUNDING = 1e-9
STRENGTH = {
    "weight_decay": 3.0,
    "l2": 0.05,
    "l1": 0.01,
    "dropout": 0.4,
    "input_noise": 0.3,
    "label_smoothing": 0.2,
    "gradient_clip": 0.05,
    "ema": 0.7,
    "early_stopping": 1.0,
}
SCHEDULES = {"constant": {}, "warm cosine": {"schedule": "cosine", "warmup": 0.3}}
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"model": {"name": "mlp", "init_args": {"hidden": [8]}}},
    "batch norm": {"model": {"name": "mlp", "init_args": {"hidden": [8], "norm": "batch"}}},
    "conv": {"model": {"name": "convnet", "init_args": {"channels": [3]}}},
    "attention": {
        "data": {"name": "mnist1d", "init_args": {"batch_size": 300}},
        "model": {"name": "transformer", "init_args": {"patch": 10, "width": 8, "heads": 2, "blocks": 1}},
    },
}


def apart(strengths: dict[str, float], optimizer: str, fuse: bool = True, lr: float = 1e-3, **changes: Any) -> float:
    """Distance of a trial's weights from those of its text."""
    optimizer_and_schedule = {"name": optimizer, **changes.pop("schedule", {})}
    factory = factory_of(strengths, optimizer=optimizer_and_schedule, **changes)
    configuration = Configuration(lr, strengths, {})
    return distance(
        run_text(text_of(factory, configuration), factory, configuration), trained(factory, configuration, fuse)
    )


CASES = [*product(STRENGTH, ("adamw", "adam", "sgd", "radam"), SCHEDULES, NETWORKS)]
SOME = [case for number, case in enumerate(CASES) if number % 17 == 0]


def test_every_regularizer_optimizer_schedule_and_network_is_tried() -> None:
    assert STRENGTH.keys() == REGULARIZERS.keys()
    for column, known in enumerate((REGULARIZERS, OPTIMIZERS, SCHEDULES, NETWORKS)):
        assert {case[column] for case in SOME} == set(known)


@pytest.mark.parametrize(
    ("key", "optimizer", "schedule", "network"),
    [case if case in SOME else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_its_text_gives_the_trials_weights(key: str, optimizer: str, schedule: str, network: str) -> None:
    strengths, changes = {key: STRENGTH[key]}, NETWORKS[network]
    difference = apart(strengths, optimizer, schedule=SCHEDULES[schedule], **changes)
    assert difference < ROUNDING


@pytest.mark.parametrize("key", sorted(STRENGTH.keys() - {"early_stopping"}))
def test_without_its_strength_the_text_gives_other_weights(key: str) -> None:
    """What the comparison of the others would miss if a strength had no effect here."""
    factory = factory_of({key: STRENGTH[key]}, optimizer={"name": "adam"})
    configuration, bare = Configuration(1e-3, {key: STRENGTH[key]}, {}), Configuration(1e-3, {}, {})
    whole, without = (text_of(factory, one) for one in (configuration, bare))
    assert distance(run_text(whole, factory, configuration), run_text(without, factory, configuration)) > 1e-5


def test_early_stopping_keeps_the_schedule_of_the_planned_epochs() -> None:
    """At this rate the loss soon rises: the trial ends long before, with the weights of an earlier epoch."""
    strengths = {"early_stopping": 2.0, "ema": 0.5}
    factory = factory_of(strengths, optimizer={"schedule": "cosine"}, budget={"trials": 1, "epochs": 30})
    configuration = Configuration(1.0, strengths, {})
    ends = train_fused({0: factory.module(configuration)}, factory.data, 30)
    last = ends.epochs[0][-1]
    assert last.end == STOPPED_EARLY
    assert last.age == last.best_age + 2 < 30
    text = text_of(factory, configuration)
    assert "EPOCHS = 30" in text
    assert (
        distance(run_text(text, factory, configuration), plain(ends.states[0])) < 1e-6
    )  # such a rate magnifies rounding
    shorter = text.replace("EPOCHS = 30", f"EPOCHS = {last.age}")
    assert distance(run_text(shorter, factory, configuration), plain(ends.states[0])) > 1e-3


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain Lightning"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_all_regularizers_at_once(optimizer: str, fuse: bool) -> None:
    assert apart(STRENGTH, optimizer, fuse, schedule=SCHEDULES["warm cosine"], **NETWORKS["batch norm"]) < ROUNDING


GROUPS = [
    {"match": "^output", "name": "head", "value": 2.0},
    {"match": "linear1", "name": "body", "low": 0.1, "high": 5.0},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_groups_have_strengths_of_their_own_and_all_else_has_none(optimizer: str) -> None:
    strengths = {"weight_decay:head": 2.0, "weight_decay:body": 4.0, "l2:head": 0.1, "l1:body": 0.02}
    space = {"weight_decay": {"groups": GROUPS}, "l2": {"groups": GROUPS[:1]}, "l1": {"groups": GROUPS[1:]}}
    factory = factory_of(space, optimizer={"name": optimizer}, model={"name": "mlp", "init_args": {"hidden": [6, 6]}})
    configuration = Configuration(1e-3, strengths, {})
    text = text_of(factory, configuration)
    assert distance(run_text(text, factory, configuration), trained(factory, configuration)) < ROUNDING
    names: dict[str, Any] = {}
    exec(text, names)
    network = factory.network(configuration)
    named = {parameter: name for name, parameter in network.named_parameters()}
    groups = names["build_optimizer"](network).param_groups
    key = "decoupled_decay" if optimizer == "sgd" else "weight_decay"
    decays = {named[parameter]: group[key] for group in groups for parameter in group["params"]}
    assert decays == dict.fromkeys(decays, 0.0) | {"output.weight": 2.0, "linear1.weight": 4.0}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_both_decays_act_by_one_optimizer(optimizer: str) -> None:
    strengths = {"weight_decay": 3.0, "l2": 0.05}
    assert apart(strengths, optimizer) < ROUNDING
    factory = factory_of(strengths, optimizer={"name": optimizer})
    text = text_of(factory, Configuration(1e-3, strengths, {}))
    assert len(re.findall(r"torch\.optim\.[A-Z]", text)) == 1
    equivalents = torch_equivalents(strengths, OPTIMIZERS[optimizer].words)
    assert "torch.optim" not in equivalents["l2"]


@pytest.mark.parametrize("key", ["l2", "gradient_clip"])
def test_the_default_decay_of_adamw_does_not_act_where_decay_is_off(key: str) -> None:
    strengths = {"weight_decay": 0.0, key: STRENGTH[key]}
    factory = factory_of(strengths)
    configuration, acting = Configuration(1e-2, strengths, {}), {key: STRENGTH[key]}
    text, expected = text_of(factory, configuration, strengths=acting), trained(factory, configuration)
    assert distance(run_text(text, factory, configuration), expected) < ROUNDING
    by_default = text.replace(", weight_decay=0.0", "")
    assert by_default != text
    assert distance(run_text(by_default, factory, configuration), expected) > 1e-4


# -- batches, outputs and losses of other forms ---------------------------------------------------------------------


class Given(L.LightningDataModule):
    """Batches as they are."""

    def __init__(self, batches: list[Any], task: str = "classification") -> None:
        super().__init__()
        self.batches, self.task = batches, task

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    train_eval_dataloader = val_dataloader = train_dataloader


class Net(nn.Module):
    """A linear layer, with its outputs in a form; codes choose a row that is added."""

    def __init__(self, outputs: int = 3, form: str = "tensor") -> None:
        super().__init__()
        self.form, self.layer, self.table = form, nn.Linear(4, outputs), nn.Embedding(5, outputs)

    def forward(self, x: torch.Tensor, codes: torch.Tensor | None = None) -> Any:
        scores = self.layer(x) if codes is None else self.layer(x) + self.table(codes)
        return {"tensor": scores, "tuple": (scores, x), "mapping": {"hidden": x, "logits": scores}}[self.form]


def rows(count: int, *shape: int) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


def numbers(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(high))


X, Y = rows(8, 4), numbers(3, 8)
FORMS: dict[str, tuple[Any, Any, str]] = {
    "pair": ((X, Y), Net, "classification"),
    "32 bit class numbers": ((X, Y.int()), Net, "classification"),
    "several inputs": ((X, numbers(5, 8), Y), Net, "classification"),
    "mapping": ({"x": X, "codes": numbers(5, 8), "label": Y, "path": ["a"] * 8}, Net, "classification"),
    "mapping of one input": ({"image": X, "label": Y}, Net, "classification"),
    "outputs in a tuple": ((X, Y), partial(Net, form="tuple"), "classification"),
    "outputs in a mapping": ((X, Y), partial(Net, form="mapping"), "classification"),
    "one logit": ((X, numbers(2, 8)), partial(Net, outputs=1), "classification"),
    "shares of one logit": ((X, numbers(2, 8, 1).float()), partial(Net, outputs=1), "classification"),
    "shares": ((X, rows(8, 3).softmax(-1)), Net, "classification"),
    "numbers": ((X, rows(8, 2)), partial(Net, outputs=2), "regression"),
    "numbers of another shape": ((X, rows(8)), partial(Net, outputs=1), "regression"),
}


@pytest.mark.parametrize("form", FORMS)
def test_batches_and_outputs_of_any_form(form: str) -> None:
    batch, model, task = FORMS[form]
    strengths = {"weight_decay": 3.0, "input_noise": 0.3, "early_stopping": 3.0}
    strengths |= {"label_smoothing": 0.2} if task == "classification" else {}
    assert apart(strengths, "adamw", data=Given([batch, batch], task), model=model) < ROUNDING


@pytest.mark.parametrize(("precision", "rounding"), [(32, 1e-6), ("bf16-mixed", 1e-3)])
def test_other_precisions(precision: object, rounding: float) -> None:
    trainer = {"accelerator": "cpu", "precision": precision}
    assert apart({"weight_decay": 3.0, "l2": 0.05, "early_stopping": 2.0}, "sgd", trainer=trainer) < rounding


class Complex(nn.Module):
    """A layer with complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(self.weight.dtype) @ self.weight.T).abs()


def test_complex_weights() -> None:
    trainer = {"accelerator": "cpu", "precision": 32}
    strengths = {"weight_decay": 3.0, "l2": 0.05, "gradient_clip": 0.1}
    assert apart(strengths, "sgd", data=Given([(X, Y)]), model=Complex, trainer=trainer) < 1e-6


def test_class_weights() -> None:
    data = Given([(X, Y)])
    data.class_weights = (1.1, 2.3, 0.7)  # type: ignore[attr-defined]
    assert apart({"label_smoothing": 0.2, "early_stopping": 2.0}, "adamw", data=data, model=Net) < ROUNDING


def test_what_a_package_adds_without_a_text_is_named() -> None:
    factory = factory_of({"l2": 0.1})
    training = training_of(factory, Configuration(1e-3, {"l2": 0.1}, {}))
    with pytest.MonkeyPatch.context() as patch:
        foreign = {"l2": replace(REGULARIZERS["l2"], code="")}
        patch.setattr("wdsearch.storage.training.REGULARIZERS", foreign)
        assert "MISSING here: l2 = 0.1" in training_text(training)
