"""Our layers against torch's own."""

import pytest
import torch
from torch import nn

from wdsearch.models import MODELS
from wdsearch.models.layers import BatchNorm, SiLU


def test_batch_norm_is_that_of_torch() -> None:
    """Outputs, gradients and running statistics, in training and evaluation."""
    generator = torch.Generator().manual_seed(0)
    theirs = nn.BatchNorm1d(7).double()
    with torch.no_grad():
        theirs.weight.uniform_(generator=generator), theirs.bias.uniform_(generator=generator)
    ours = BatchNorm(7).double()
    ours.load_state_dict(theirs.state_dict())
    for _ in range(3):
        inputs = torch.randn(11, 7, dtype=torch.float64, generator=generator, requires_grad=True)
        outputs = [layer(inputs) for layer in (ours, theirs)]
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
        gradients = [
            torch.autograd.grad(o.sin().sum(), [inputs, *layer.parameters()])
            for o, layer in zip(outputs, (ours, theirs), strict=True)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(inputs), theirs.eval()(inputs), rtol=1e-12, atol=1e-12)


def test_silu_is_that_of_torch() -> None:
    inputs = torch.linspace(-40, 40, 101, dtype=torch.float64)
    torch.testing.assert_close(SiLU()(inputs), nn.functional.silu(inputs), rtol=1e-10, atol=1e-12)


def test_mlp_has_the_layers_it_is_told_to() -> None:
    network = MODELS["mlp"](5, 3, hidden=[4, 6], activation="gelu", batch_norm=True, dropout=0.2)
    kinds = [type(layer).__name__ for layer in network]
    block = ["Linear", "BatchNorm", "GELU", "Dropout"]
    assert kinds == ["Flatten", *block, *block, "Linear"]
    assert [tuple(p.shape) for p in network.parameters() if p.ndim == 2] == [(4, 5), (6, 4), (3, 6)]
    with pytest.raises(ValueError, match="activation is 'rleu'; allowed are relu, gelu, silu, tanh"):
        MODELS["mlp"](5, 3, activation="rleu")
