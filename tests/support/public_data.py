"""Batches of random rows in the forms that public libraries give them; each class has a pattern of its own."""

from typing import Any

import torch
from torch import Tensor

FEATURES, CATEGORIES = 10, [4, 3]
PADDING, END, WORDS, LENGTH = 0, 2, range(3, 30), 6


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _classes(count: int, seed: int) -> Tensor:
    return torch.randint(3, (count,), generator=_generator(seed + 100))


def texts(count: int, seed: int) -> Any:
    """Batch as the tokenizers of Hugging Face give it: texts of two lengths, each with an end, and their mask."""
    from transformers import BatchEncoding

    words = torch.randint(WORDS.start, WORDS.stop, (count, LENGTH), generator=_generator(seed))
    words[:, -1] = END
    words[::3, -3], words[::3, -2:] = END, PADDING
    mask = (words != PADDING).long()
    return BatchEncoding({"input_ids": words, "attention_mask": mask, "labels": _classes(count, seed)})


def tokens(count: int, seed: int) -> tuple[Tensor, Tensor]:
    return torch.randint(WORDS.stop, (count, LENGTH), generator=_generator(seed)), _classes(count, seed)


def images(count: int, seed: int) -> dict[str, Tensor]:
    pixels = torch.randn(count, 1, 8, 8, generator=_generator(seed))
    return {"pixel_values": pixels, "labels": _classes(count, seed)}


def pairs_of_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    pixels, classes = images(count, seed).values()
    return pixels, classes


def rows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, FEATURES, generator=_generator(seed)), _classes(count, seed)


def rows_and_categories(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    categories = [torch.randint(size, (count,), generator=_generator(seed + size)) for size in CATEGORIES]
    numbers, targets = rows(count, seed)
    return numbers, torch.stack(categories, 1), targets


def graphs(count: int, seed: int) -> Any:
    """Rings of five nodes as one graph."""
    from torch_geometric.data import Batch, Data

    ring = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])
    nodes = torch.randn(count, 5, FEATURES, generator=_generator(seed))
    return Batch.from_data_list(
        [Data(x=x, edge_index=ring, y=y) for x, y in zip(nodes, _classes(count, seed), strict=True)]
    )
