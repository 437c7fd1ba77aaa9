"""The Transformer encoder for sequences and tables."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wdsearch.models.layers import Embeddings, NumberTokens, PatchTokens, Residual, Shaped, normalization


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 1706.03762, section 3.2)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


class Transformer(nn.Module):
    """Tokens of a row, and of its categories, through blocks of attention and a perceptron, each after its norm; their mean."""

    def __init__(
        self, tokens: nn.Module, embeddings: Embeddings | None, blocks: Sequence[nn.Module], output: nn.Module
    ) -> None:
        super().__init__()
        self.tokens, self.embeddings = tokens, embeddings
        self.blocks, self.output = nn.Sequential(*blocks), output

    def forward(
        self, rows: Float[Tensor, "batch ..."], codes: Int[Tensor, "batch columns"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        tokens = self.tokens(rows)
        if self.embeddings is not None and codes is not None:
            tokens = torch.cat([tokens, self.embeddings(codes)], dim=1)
        return self.output(self.blocks(tokens).mean(1))


def transformer(
    shape: Sequence[int],
    outputs: int,
    categories: Sequence[int] = (),
    width: int = 32,
    heads: int = 4,
    blocks: int = 2,
    patch: int = 1,
    norm: str | None = "layer",
    dropout: float = 0.0,
) -> nn.Module:
    """A pre-norm Transformer encoder (Xiong et al. 2002.04745) over patches of a sequence, or over the columns of a table.

    Each number and each category of a table is a token (FT-Transformer, Gorishniy et al. 2106.11959, section 3.3). `norm` is
    layer, batch (feature by feature, over the tokens of all rows) or nothing; `dropout` acts on attention weights, in the
    perceptrons and on both residual branches.

    >>> transformer((1, 40), outputs=10, width=8, heads=2, blocks=1, patch=8)(torch.zeros(5, 40)).shape
    torch.Size([5, 10])
    """
    if len(shape) > 2:
        raise ValueError(f"rows of shape {tuple(shape)} are no sequence; needed is (channels, length) or (features,)")
    if len(shape) == 2 and shape[1] % patch:
        raise ValueError(f"patch is {patch}, which does not divide a length of {shape[1]}")
    if width % heads:
        raise ValueError(f"heads is {heads}, which does not divide a width of {width}")

    def block() -> list[nn.Module]:
        perceptron = [nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)]
        return [
            Residual(*normalization(norm, width), Attention(width, heads, dropout), nn.Dropout(dropout)),
            Residual(*normalization(norm, width), *perceptron, nn.Dropout(dropout)),
        ]

    is_table = len(shape) == 1
    tokens = NumberTokens(shape[0], width) if is_table else PatchTokens(shape[0], shape[1], width, patch)
    embeddings = Embeddings(categories, width) if categories else None
    layers = [layer for _ in range(blocks) for layer in block()]
    return Transformer(
        nn.Sequential(Shaped(shape), tokens),
        embeddings,
        [*layers, *normalization(norm, width)],
        nn.Linear(width, outputs),
    )
