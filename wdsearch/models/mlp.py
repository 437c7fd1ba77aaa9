"""A multilayer perceptron."""

from collections.abc import Sequence

from torch import nn

from wdsearch.models.layers import SiLU, named, normalization

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": SiLU, "tanh": nn.Tanh}


def mlp(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Linear layers of the given widths, each followed by its norm (batch, layer or nothing), the activation and dropout.

    No hidden width at all gives a linear model.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; allowed are {', '.join(ACTIVATIONS)}")
    layers: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for place, width in enumerate(hidden, start=1):
        layers.append((f"linear{place}", nn.Linear(inputs, width, bias=norm != "batch")))
        layers += [(f"norm{place}", layer) for layer in normalization(norm, width)]
        layers += [(f"activation{place}", ACTIVATIONS[activation]()), (f"dropout{place}", nn.Dropout(dropout))]
        inputs = width
    return named([*layers, ("output", nn.Linear(inputs, outputs))])
