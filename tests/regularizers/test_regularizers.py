"""The contract of every regularizer in the table; a new one is covered without new test code."""

import copy

import pytest
import torch
from support.regularizer_contract import changes_by_its_strength, fused_equals_alone, strong
from torch.func import vmap

from wdsearch.models import MODELS
from wdsearch.noise import NoiseStream
from wdsearch.optimizers import OPTIMIZERS
from wdsearch.regularizers import REGULARIZERS, Recommendation, Regularizer
from wdsearch.tasks.task import Task
from wdsearch.trial.module import RegularizedModule

every_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@every_regularizer
@every_optimizer
def test_a_neutral_strength_changes_nothing_and_some_strength_does(regularizer: Regularizer, optimizer: str) -> None:
    changes_by_its_strength(regularizer, optimizer)


@every_regularizer
@every_optimizer
def test_fused_equals_alone_from_neutral_to_strong(regularizer: Regularizer, optimizer: str) -> None:
    fused_equals_alone(regularizer, optimizer)


@every_regularizer
def test_vmapped_equals_looped(regularizer: Regularizer) -> None:
    """Each function gives under vmap what it gives called once per trial."""
    strengths = torch.tensor([*regularizer.usual[:2], strong(regularizer)], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 4, (6,), generator=generator)

    def noise() -> NoiseStream:
        return NoiseStream(0, regularizer.key)

    calls = {
        "augment": lambda row, s: regularizer.augment(row, s, stream),
        "loss": lambda row, s: regularizer.loss(row.square().mean(), row, targets, s, Task()),
        "penalty": lambda row, s: regularizer.penalty({"weight": row}, s),
        "gradients": lambda row, s: regularizer.gradients({"weight": row}, s)["weight"],
        "decay": lambda row, s: regularizer.decay(s),
        "prox": lambda row, s: regularizer.prox(row, torch.full_like(row, 0.1), s),
        "init_state": lambda row, s: _together(regularizer.init_state({"weight": row})),
        "after_step": lambda row, s: _followed(regularizer, row, s),
        "evaluated": lambda row, s: regularizer.evaluated({"weight": row}, {"weight": row + 1.0})["weight"],
    }
    for point, call in calls.items():
        if getattr(regularizer, point) is not None:
            stream = noise()
            vmapped = vmap(call, randomness="same")(rows, strengths)
            looped = []
            for row, strength in zip(rows, strengths, strict=True):
                stream = noise()
                looped.append(call(row, strength))
            torch.testing.assert_close(vmapped, torch.stack(looped), rtol=0, atol=1e-14)


def _followed(regularizer: Regularizer, weight: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Weight and state after three steps that each add to the weight."""
    state = regularizer.init_state({"weight": weight}) if regularizer.init_state else {}
    after = {"weight": weight}
    for step in (1, 2, 3):
        before = {"weight": after["weight"] + 0.1 * step}
        after, state = regularizer.after_step(before, state, step, strength)
    return _together(after | {f"state {name}": value for name, value in state.items()})


def _together(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten() for value in tensors.values()])


@every_regularizer
def test_every_regularizer_says_what_to_pass_to_torch(regularizer: Regularizer) -> None:
    for optimizer in OPTIMIZERS.values():
        text = regularizer.torch(strong(regularizer), Recommendation(optimizer.words, clipped=True))
        assert f"{strong(regularizer):.4g}"[:4] in text or f"{2 * strong(regularizer):.4g}"[:4] in text
    assert regularizer.neutral in regularizer.domain
    assert strong(regularizer) in regularizer.domain


def test_a_strength_outside_its_domain_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dropout is 1.0; allowed is \[0, 1\)"):
        RegularizedModule(torch.nn.Linear(2, 2), {"dropout": 1.0})
    with pytest.raises(ValueError, match="no regularizer 'weightdecay'; known: weight_decay"):
        RegularizedModule(torch.nn.Linear(2, 2), {"weightdecay": 1.0})
    with pytest.raises(ValueError, match="label_smoothing works for classification, not for regression"):
        RegularizedModule(torch.nn.Linear(2, 1), {"label_smoothing": 0.1}, task=Task("regression"))


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 4.0, 0.0, 1.0, 3.0)])
def test_label_smoothing_is_torchs(weights: tuple[float, ...] | None) -> None:
    outputs, targets = torch.randn(50, 7, dtype=torch.float64), torch.randint(0, 7, (50,))
    task, weight = Task(class_weights=weights), None if weights is None else torch.tensor(weights).double()
    for strength in (0.0, 0.1, 0.9):
        value, given = task.loss(outputs, targets), torch.tensor(strength)
        ours = REGULARIZERS["label_smoothing"].loss(value, outputs, targets, given.double(), task)
        torchs = torch.nn.functional.cross_entropy(outputs, targets, weight, label_smoothing=float(given))
        torch.testing.assert_close(ours, torchs)


def test_clipping_is_torchs() -> None:
    for limit in (0.1, 3.0, 1e9):
        parameters = [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(4))]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        gradients = {str(i): p.grad.clone() for i, p in enumerate(parameters)}
        clipped = REGULARIZERS["gradient_clip"].gradients(gradients, torch.tensor(limit))
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        for i, parameter in enumerate(parameters):
            torch.testing.assert_close(clipped[str(i)], parameter.grad)


def test_dropout_drops_its_rate_and_keeps_the_mean() -> None:
    from wdsearch.trial.dropout import Dropout

    layer = Dropout(0.3, NoiseStream(0, "dropout"))
    outputs = layer(torch.ones(400, 500))
    assert (outputs == 0).double().mean().item() == pytest.approx(0.3, abs=5e-3)
    assert outputs.mean().item() == pytest.approx(1.0, abs=1e-2)
    assert torch.equal(layer.eval()(torch.ones(3)), torch.ones(3))


def test_adding_a_regularizer_shifts_no_others_noise() -> None:
    network = MODELS["mlp"](64, 10, hidden=(16,))
    alone = RegularizedModule(copy.deepcopy(network), {"dropout": 0.3}, seed=4)
    together = RegularizedModule(copy.deepcopy(network), {"input_noise": 0.0, "dropout": 0.3}, seed=4)
    batch = torch.randn(8, 64), torch.randint(0, 10, (8,))
    for module in (alone, together):
        module.rewind_noise(3, 7)
    assert torch.equal(alone.objective(batch), together.objective(batch))
