"""A multilayer perceptron."""

from collections.abc import Sequence

from torch import nn

from wdsearch.models.layers import BatchNorm, SiLU

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": SiLU, "tanh": nn.Tanh}


def mlp(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Linear layers of the given widths, each followed by batch norm if wanted, the activation and dropout.

    No hidden width at all gives a linear model.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; allowed are {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers.append(nn.Linear(inputs, width, bias=not batch_norm))
        layers += [BatchNorm(width)] if batch_norm else []
        layers += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
