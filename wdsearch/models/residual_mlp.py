"""The residual multilayer perceptron for tables of numbers and categories."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wdsearch.models.layers import Embeddings, Residual, named, normalization


class ResidualMLP(nn.Module):
    """Blocks x + dropout(W₂ dropout(relu(W₁ norm(x)))) over numbers and embedded categories (Gorishniy et al. 2106.11959)."""

    def __init__(self, embeddings: Embeddings | None, steps: nn.Module) -> None:
        super().__init__()
        self.embeddings, self.steps = embeddings, steps

    def forward(
        self, numbers: Float[Tensor, "batch ..."], codes: Int[Tensor, "batch columns"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        features = [numbers.flatten(1)]
        if self.embeddings is not None and codes is not None:
            features.append(self.embeddings(codes).flatten(1))
        return self.steps(torch.cat(features, dim=1))


def residual_mlp(
    inputs: int,
    outputs: int,
    categories: Sequence[int] = (),
    width: int = 128,
    blocks: int = 3,
    expansion: int = 2,
    embedding: int = 8,
    norm: str | None = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """The ResNet for tables of Gorishniy et al. 2106.11959, section 3.2, with an embedding for each column of categories.

    `norm` is batch, layer or nothing; `dropout` acts twice in each block.

    >>> network = residual_mlp(3, outputs=2, categories=(4, 5), width=8, blocks=1)
    >>> network(torch.zeros(6, 3), torch.zeros(6, 2, dtype=torch.int64)).shape
    torch.Size([6, 2])
    """

    def block() -> nn.Module:
        wide = expansion * width
        inner = [nn.Linear(width, wide), nn.ReLU(), nn.Dropout(dropout), nn.Linear(wide, width), nn.Dropout(dropout)]
        return Residual(*normalization(norm, width), *inner)

    embeddings = Embeddings(categories, embedding) if categories else None
    steps = [
        ("input", nn.Linear(inputs + len(categories) * embedding, width)),
        *((f"block{number}", block()) for number in range(1, blocks + 1)),
        *(("norm", layer) for layer in normalization(norm, width)),
        ("activation", nn.ReLU()),
        ("output", nn.Linear(width, outputs)),
    ]
    return ResidualMLP(embeddings, named(steps))
