"""The multilayer perceptron; without hidden layers, a linear model."""

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

    Without hidden widths it is a linear model.

    >>> list(dict(mlp(64, 10, hidden=(16,), norm="layer").named_children()))
    ['flatten', 'linear1', 'norm1', 'activation1', 'dropout1', 'output']
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; allowed are {', '.join(ACTIVATIONS)}")
    layers: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for number, width in enumerate(hidden, start=1):
        layers.append((f"linear{number}", nn.Linear(inputs, width, bias=norm != "batch")))
        layers += [(f"norm{number}", layer) for layer in normalization(norm, width)]
        layers += [(f"activation{number}", ACTIVATIONS[activation]()), (f"dropout{number}", nn.Dropout(dropout))]
        inputs = width
    return named([*layers, ("output", nn.Linear(inputs, outputs))])
