"""A residual convolutional network for images and sequences."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from wdsearch.models.convnet import layers_for
from wdsearch.models.layers import Mean, Shaped


class Block(nn.Module):
    """Two 3-wide convolutions beside a shortcut, each after batch norm and ReLU (He et al. 1603.05027, figure 1b)."""

    def __init__(self, shape: Sequence[int], depth: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        convolution, normalization, _ = layers_for(shape)
        options: dict[str, Any] = {"padding": 1, "bias": False}
        self.before = nn.Sequential(normalization(depth), nn.ReLU())
        self.steps = nn.Sequential(
            convolution(depth, width, 3, stride=stride, **options),
            normalization(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            convolution(width, width, 3, **options),
        )
        projected = stride > 1 or depth != width
        self.shortcut = convolution(depth, width, 1, stride=stride, bias=False) if projected else nn.Identity()

    def forward(self, inputs: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch width ..."]:
        ready = self.before(inputs)
        return self.steps(ready) + self.shortcut(inputs if isinstance(self.shortcut, nn.Identity) else ready)


def resnet(
    shape: Sequence[int], outputs: int, width: int = 16, blocks: Sequence[int] = (2, 2, 2), dropout: float = 0.0
) -> nn.Module:
    """The ResNet for small images of He et al. 1512.03385, section 4.2, with pre-activation (1603.05027).

    Stages of `blocks` blocks, the first `width` wide, each further one twice as wide at half the size; `dropout` acts between
    the convolutions of a block (Zagoruyko & Komodakis 1605.07146).
    """
    convolution, normalization, _ = layers_for(shape)
    layers: list[nn.Module] = [Shaped(shape), convolution(shape[0], width, 3, padding=1, bias=False)]
    depth = width
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if stage and not index else 1
            layers.append(Block(shape, depth, width * 2**stage, stride, dropout))
            depth = width * 2**stage
    return nn.Sequential(*layers, normalization(depth), nn.ReLU(), nn.Flatten(2), Mean(), nn.Linear(depth, outputs))
