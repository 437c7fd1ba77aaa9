"""A small convolutional network for images and sequences."""

from collections.abc import Sequence

from torch import nn

from wdsearch.models.layers import Mean, Shaped

CONVOLUTIONS = {2: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d), 3: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)}
"""Convolution, batch norm and pooling for (channels, length) and (channels, height, width)."""


def layers_for(shape: Sequence[int]) -> tuple[type[nn.Module], type[nn.Module], type[nn.Module]]:
    """Convolution, batch norm and pooling for rows of a shape. Raises ValueError."""
    if len(shape) not in CONVOLUTIONS:
        needed = "(channels, length) or (channels, height, width)"
        raise ValueError(f"rows of shape {tuple(shape)} cannot be convolved; needed is {needed}")
    return CONVOLUTIONS[len(shape)]


def convnet(
    shape: Sequence[int],
    outputs: int,
    channels: Sequence[int] = (32, 64),
    kernel: int = 3,
    batch_norm: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """Convolutions of the given channels, each with batch norm if wanted, ReLU, dropout of channels and halving; then a mean.

    Halving stops where a side would vanish. `dropout` also acts before the last layer.
    """
    convolution, normalization, pooling = layers_for(shape)
    drop = {2: nn.Dropout1d, 3: nn.Dropout2d}[len(shape)]
    layers: list[nn.Module] = [Shaped(shape)]
    depth, side = shape[0], min(shape[1:])
    for width in channels:
        layers.append(convolution(depth, width, kernel, padding=kernel // 2, bias=not batch_norm))
        layers += [normalization(width)] if batch_norm else []
        layers += [nn.ReLU(), drop(dropout)]
        if side >= 4:
            layers.append(pooling(2))
            side //= 2
        depth = width
    return nn.Sequential(*layers, nn.Flatten(2), Mean(), nn.Dropout(dropout), nn.Linear(depth, outputs))
