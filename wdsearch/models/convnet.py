"""The convolutional network for images and sequences, and the layers that their shapes ask for."""

from collections.abc import Sequence

from torch import nn

from wdsearch.models.layers import Mean, Shaped, named

CONVOLUTIONS = {2: (nn.Conv1d, nn.MaxPool1d, nn.BatchNorm1d), 3: (nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d)}
"""Convolution, pooling and batch norm for (channels, length) and (channels, height, width)."""


def layers_for(shape: Sequence[int]) -> tuple[type[nn.Module], type[nn.Module]]:
    """Convolution and pooling for rows of a shape. Raises ValueError.

    >>> [layer.__name__ for layer in layers_for((3, 32, 32))]
    ['Conv2d', 'MaxPool2d']
    """
    if len(shape) not in CONVOLUTIONS:
        needed = "(channels, length) or (channels, height, width)"
        raise ValueError(f"rows of shape {tuple(shape)} cannot be convolved; needed is {needed}")
    return CONVOLUTIONS[len(shape)][:2]


def channel_norm(name: str | None, shape: Sequence[int], channels: int) -> list[nn.Module]:
    """A normalization of channels by name, none for None; `layer` is over a row (Ba et al. 1607.06450). Raises ValueError.

    >>> [type(layer).__name__ for layer in channel_norm("batch", (1, 40), 8)], channel_norm(None, (1, 40), 8)
    (['BatchNorm1d'], [])
    """
    if name is None:
        return []
    if name == "layer":
        return [nn.GroupNorm(1, channels)]
    if name == "batch":
        return [CONVOLUTIONS[len(shape)][2](channels)]
    raise ValueError(f"norm is {name!r}; allowed are batch, layer, or nothing")


def convnet(
    shape: Sequence[int],
    outputs: int,
    channels: Sequence[int] = (32, 64),
    kernel: int = 3,
    norm: str | None = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """Convolutions of the given channels, each with its norm, ReLU, dropout of channels and pooling; then a mean.

    `norm` is batch, layer or nothing. Pooling halves the sides until one is below 4. `dropout` also acts before the last layer.

    >>> import torch
    >>> convnet((1, 8, 8), outputs=10, channels=(4,))(torch.zeros(5, 64)).shape
    torch.Size([5, 10])
    """
    convolution, pooling = layers_for(shape)
    drop = {2: nn.Dropout1d, 3: nn.Dropout2d}[len(shape)]
    layers: list[tuple[str, nn.Module]] = [("shaped", Shaped(shape))]
    depth, side = shape[0], min(shape[1:])
    for number, width in enumerate(channels, start=1):
        conv = convolution(depth, width, kernel, padding=kernel // 2, bias=norm != "batch")
        layers.append((f"conv{number}", conv))
        layers += [(f"norm{number}", layer) for layer in channel_norm(norm, shape, width)]
        layers += [(f"activation{number}", nn.ReLU()), (f"dropout{number}", drop(dropout))]
        if side >= 4:
            layers.append((f"pool{number}", pooling(2)))
            side //= 2
        depth = width
    layers += [("flatten", nn.Flatten(2)), ("mean", Mean()), ("dropout", nn.Dropout(dropout))]
    return named([*layers, ("output", nn.Linear(depth, outputs))])
