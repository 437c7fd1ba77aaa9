"""The residual convolutional network for images and sequences."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from wdsearch.models.convnet import channel_norm, layers_for
from wdsearch.models.layers import Mean, Shaped, named


class Block(nn.Module):
    """Two 3-wide convolutions beside a shortcut, each after its norm and ReLU (He et al. 1603.05027, figure 1b)."""

    def __init__(
        self, shape: Sequence[int], depth: int, width: int, stride: int, norm: str | None, dropout: float
    ) -> None:
        super().__init__()
        convolution, _ = layers_for(shape)
        options: dict[str, Any] = {"padding": 1, "bias": norm is None}
        self.before = nn.Sequential(*channel_norm(norm, shape, depth), nn.ReLU())
        self.steps = nn.Sequential(
            convolution(depth, width, 3, stride=stride, **options),
            *channel_norm(norm, shape, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            convolution(width, width, 3, **options),
        )
        projected = stride > 1 or depth != width
        self.shortcut = convolution(depth, width, 1, stride=stride, bias=False) if projected else nn.Identity()

    def forward(self, inputs: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch width ..."]:
        activated = self.before(inputs)
        return self.steps(activated) + self.shortcut(inputs if isinstance(self.shortcut, nn.Identity) else activated)


def resnet(
    shape: Sequence[int],
    outputs: int,
    width: int = 16,
    blocks: Sequence[int] = (2, 2, 2),
    norm: str | None = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """The ResNet for small images of He et al. 1512.03385, section 4.2, with pre-activation (1603.05027).

    Stages of `blocks` blocks, the first `width` wide, each further one twice as wide at half the size; `norm` is batch, layer or
    nothing; `dropout` acts between the convolutions of a block (Zagoruyko & Komodakis 1605.07146).

    >>> import torch
    >>> resnet((1, 40), outputs=10, width=4, blocks=(1, 1))(torch.zeros(5, 40)).shape
    torch.Size([5, 10])
    """
    convolution, _ = layers_for(shape)
    first = convolution(shape[0], width, 3, padding=1, bias=norm is None)
    layers: list[tuple[str, nn.Module]] = [("shaped", Shaped(shape)), ("input", first)]
    depth = width
    for stage, count in enumerate(blocks, start=1):
        stage_width = width * 2 ** (stage - 1)
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            layers.append((f"stage{stage}block{number}", Block(shape, depth, stage_width, stride, norm, dropout)))
            depth = stage_width
    layers += [("norm", layer) for layer in channel_norm(norm, shape, depth)]
    layers += [("activation", nn.ReLU()), ("flatten", nn.Flatten(2)), ("mean", Mean())]
    return named([*layers, ("output", nn.Linear(depth, outputs))])
