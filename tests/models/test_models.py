"""Our layers against torch's own, and each network we ship: fused as alone, whatever lies beside it."""

from functools import partial
from typing import Any

import pytest
import torch
from support.networks import SMALL, VARIANTS, data, trial
from support.training import Ends, distance_from_alone, largest_difference, train_fused
from torch import nn

from wdsearch.models import MODELS
from wdsearch.models.layers import BatchNorm, LayerNorm, SiLU
from wdsearch.trial.recipe import Recipe, decayed_parameters

TESTED = [pytest.param(name, marks=[pytest.mark.slow] * (name == "transformer table batch")) for name in VARIANTS]


def test_every_network_is_tested_here() -> None:
    assert SMALL.keys() == MODELS.keys()


@pytest.mark.parametrize("name", TESTED)
def test_a_fused_trial_of_each_network_equals_training_it_alone(name: str) -> None:
    epochs = 2 if name in SMALL else 1  # what differs between epochs does not depend on a network's options
    ends = train_fused({number: trial(name, number) for number in range(3)}, data(240), epochs)
    assert distance_from_alone(ends, partial(trial, name), data(240), epochs) < 1e-9
    assert largest_difference(ends.states[1], ends.states[2]) > 1e-5


@pytest.mark.parametrize("name", TESTED)
def test_neighbours_change_no_bit_of_any_network(name: str) -> None:
    def run(numbers: tuple[int, ...], max_fused: int) -> Ends:
        trials = {number: trial(name, number, 10.0) for number in numbers}
        return train_fused(trials, data(173), 1, max_fused=max_fused, precision="32-true")

    together = run(tuple(range(7)), 32)
    for other in (run(tuple(range(7)), 3), run((5, 2), 32), run((5,), 32)):
        for number, state in other.states.items():
            assert largest_difference(together.states[number], state) == 0.0, number
            assert together.epochs[number] == other.epochs[number]


def test_categories_are_embedded() -> None:
    numbers, codes = torch.randn(5, 3), torch.tensor([[0, 1], [1, 3], [0, 2], [1, 0], [0, 0]])
    for network in (
        MODELS["residual_mlp"](3, 2, categories=(2, 4), width=8, blocks=1),
        MODELS["transformer"]((3,), 2, categories=(2, 4), width=8, heads=2, blocks=1),
    ):
        network.eval()
        outputs = network(numbers, codes)
        assert outputs.shape == (5, 2)
        assert not torch.equal(outputs, network(numbers, codes.flip(0)))


@pytest.mark.parametrize(
    ("name", "not_decayed"),
    [
        ("residual_mlp", {"embeddings.columns.0.weight", "steps.block1.steps.0.weight"}),
        ("convnet", {"norm1.weight"}),
        ("resnet", {"stage1block1.before.0.weight"}),
        ("transformer", {"tokens.1.places.weight", "blocks.0.steps.0.weight"}),
        ("transformer table", {"tokens.1.weight"}),
        ("transformer batch", {"blocks.0.steps.0.weight", "blocks.2.weight"}),
    ],
)
def test_norms_embeddings_and_biases_do_not_decay(name: str, not_decayed: set[str]) -> None:
    options = VARIANTS[name] | ({"categories": (3,)} if name == "residual_mlp" else {})
    network = MODELS[name.split()[0]](outputs=10, **options)
    decayed = set(decayed_parameters(network, Recipe()))
    others = {parameter for parameter, _ in network.named_parameters()} - decayed
    assert not_decayed <= others
    for parameter in decayed:
        assert parameter.endswith("weight")
        kind = type(network.get_submodule(parameter.rpartition(".")[0]))
        assert issubclass(kind, nn.Linear | nn.modules.conv._ConvNd | nn.MultiheadAttention), parameter


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("convnet", {"shape": (64,)}, r"rows of shape \(64,\) cannot be convolved"),
        ("transformer", {"shape": (1, 8, 8)}, "are no sequence"),
        ("transformer", {"shape": (1, 40), "patch": 3}, "patch is 3, which does not divide a length of 40"),
        ("transformer", {"shape": (1, 40), "heads": 3}, "heads is 3, which does not divide a width of 32"),
        ("residual_mlp", {"inputs": 4, "norm": "bach"}, "norm is 'bach'; allowed are batch, layer, or nothing"),
        ("transformer", {"shape": (4,), "norm": "bach"}, "norm is 'bach'; allowed are batch, layer, or nothing"),
    ],
)
def test_what_a_network_does_not_take_is_said(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MODELS[name](outputs=10, **options)


def test_layer_norm_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs, ours = nn.LayerNorm(7).double(), LayerNorm(7).double()
    with torch.no_grad():
        theirs.weight.uniform_(generator=generator), theirs.bias.uniform_(generator=generator)
    ours.load_state_dict(theirs.state_dict())
    inputs = torch.randn(4, 5, 7, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(ours(inputs), theirs(inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(11, 7), (5, 3, 7)])
def test_batch_norm_is_that_of_torch(shape: tuple[int, ...]) -> None:
    """Outputs, gradients and running statistics, in training and evaluation; torch's has the features before the tokens."""
    generator = torch.Generator().manual_seed(0)
    theirs = nn.BatchNorm1d(7).double()
    with torch.no_grad():
        theirs.weight.uniform_(generator=generator), theirs.bias.uniform_(generator=generator)
    ours = BatchNorm(7).double()
    ours.load_state_dict(theirs.state_dict())
    for _ in range(3):
        inputs = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        outputs = [ours(inputs), theirs(inputs.movedim(-1, 1)).movedim(1, -1)]
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
        gradients = [
            torch.autograd.grad(o.sin().sum(), [inputs, *layer.parameters()])
            for o, layer in zip(outputs, (ours, theirs), strict=True)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)
    expected = theirs.eval()(inputs.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(ours.eval()(inputs), expected, rtol=1e-12, atol=1e-12)


def test_silu_is_that_of_torch() -> None:
    inputs = torch.linspace(-40, 40, 101, dtype=torch.float64)
    torch.testing.assert_close(SiLU()(inputs), nn.functional.silu(inputs), rtol=1e-10, atol=1e-12)


def test_mlp_has_the_layers_it_is_told_to() -> None:
    network = MODELS["mlp"](5, 3, hidden=[4, 6], activation="gelu", norm="batch", dropout=0.2)
    kinds = [type(layer).__name__ for layer in network]
    block = ["Linear", "BatchNorm", "GELU", "Dropout"]
    assert kinds == ["Flatten", *block, *block, "Linear"]
    assert [tuple(p.shape) for p in network.parameters() if p.ndim == 2] == [(4, 5), (6, 4), (3, 6)]
    with pytest.raises(ValueError, match="activation is 'rleu'; allowed are relu, gelu, silu, tanh"):
        MODELS["mlp"](5, 3, activation="rleu")
