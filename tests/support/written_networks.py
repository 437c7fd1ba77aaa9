"""Networks and batches of the forms that people write, each with what it is trained on in a plain loop."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, weight_norm
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import wdsearch

FEATURES, CLASSES = 6, 3
Rows = Callable[[int, torch.Generator], Any]
"""A data set of so many rows, drawn by a generator."""


class Data(L.LightningDataModule):
    """Batches in a fixed order; the gap is measured on a part of the training rows."""

    def __init__(self, rows: Rows, batch: int = 24, collate: Any = None) -> None:
        super().__init__()
        self.sets = [rows(count, torch.Generator().manual_seed(seed)) for seed, count in enumerate((2 * batch, batch))]
        self.batch, self.collate = batch, collate

    def train_dataloader(self) -> Any:
        return DataLoader(self.sets[0], self.batch, collate_fn=self.collate)

    def val_dataloader(self) -> Any:
        return DataLoader(self.sets[1], self.batch, collate_fn=self.collate)


def table(count: int, generator: torch.Generator) -> TensorDataset:
    x = torch.randn(count, FEATURES, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def binary(kind: torch.dtype) -> Rows:
    def rows(count: int, generator: torch.Generator) -> TensorDataset:
        x = torch.randn(count, FEATURES, generator=generator)
        return TensorDataset(x, (x[:, 0] + x[:, 1] > 0).to(kind))

    return rows


def files(count: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Rows as data sets of image files give them: with the path and a number."""
    images = torch.randn(count, 1, 2, 3, generator=generator)
    labels = images.flatten(1)[:, :CLASSES].argmax(1)
    pairs = zip(images, labels, strict=True)
    return [{"image": x, "label": y, "path": f"img/{i}.png", "index": i} for i, (x, y) in enumerate(pairs)]


def padded(count: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Words, of which 0 is padding, and a mask of those that count."""
    words = torch.randint(1, 9, (count, 5), generator=generator)
    words[::2, 3:] = 0
    return [{"words": row, "mask": row > 0, "labels": row.sum() % CLASSES, "text": "..."} for row in words]


def arrays(count: int, generator: torch.Generator) -> list[tuple[Any, Any]]:
    """Rows straight from NumPy: in 64 bits, with 32-bit class numbers."""
    x = torch.randn(count, FEATURES, generator=generator).double().numpy()
    return [(row, np.int32(row[0] > 0)) for row in x]


def pixels(count: int, generator: torch.Generator) -> TensorDataset:
    x = torch.randn(count, 1, 4, 5, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 0] > 1).long())


class Stream(IterableDataset):
    """Rows in order, and nobody knows how many."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.rows = table(count, generator)

    def __iter__(self) -> Iterator[Any]:
        yield from (self.rows[index] for index in range(len(self.rows)))


def graphs(count: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Graphs of two to five nodes, each with a class."""
    sizes = torch.randint(2, 6, (count,), generator=generator).tolist()
    nodes = [torch.randn(size, FEATURES, generator=generator) for size in sizes]
    return [(one, (one.mean(0)[0] > 0).long()) for one in nodes]


def as_tensors(graphs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes of all graphs, the graph of each, and the graphs' classes."""
    numbers = torch.arange(len(graphs)).repeat_interleave(torch.tensor([len(nodes) for nodes, _ in graphs]))
    return torch.cat([nodes for nodes, _ in graphs]), numbers, torch.stack([y for _, y in graphs])


class GraphBatch:
    """A batch as an object that Lightning can move, and that knows nothing else."""

    def __init__(self, graphs: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.nodes, self.number, self.y = as_tensors(graphs)

    def to(self, device: Any) -> "GraphBatch":
        vars(self).update({name: value.to(device) for name, value in vars(self).items()})
        return self


@dataclass
class TableBatch:
    features: Tensor
    target: Tensor


def as_dataclass(rows: Sequence[tuple[Tensor, Tensor]]) -> TableBatch:
    return TableBatch(*(torch.stack(column) for column in zip(*rows, strict=True)))


def one_graph(count: int, generator: torch.Generator) -> TensorDataset:
    """Nodes of one graph, whose edges are a square matrix: each batch is a graph."""
    x = torch.randn(count, FEATURES, generator=generator)
    near = (torch.cdist(x, x) < 3.0).float()
    return TensorDataset(x, near, (x[:, 0] > 0).long())


def within(rows: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    x, near, y = (torch.stack(column) for column in zip(*rows, strict=True))
    return x, near[:, : len(x)], y


# -- networks ---------------------------------------------------------------------------------------------------------


def perceptron(outputs: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, outputs))


class Attended(nn.Module):
    """Gives scores and what it attended to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.gate(x).softmax(-1)
        return self.head(weights * x), weights


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze(-1)


class Temporal(nn.Module):
    """A block of a temporal convolutional network, with the weight norm of torch.nn.utils."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(1, 8, 3, padding=1))
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.conv(x.unsqueeze(1)).relu()).mean(-1))


class Vision(nn.Module):
    """A vision transformer, which names what does not decay; its layer scale is not among it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patch = nn.Linear(2, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 4, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True)
        self.gamma, self.head = nn.Parameter(0.1 * torch.ones(1, 1, width)), nn.Linear(width, CLASSES)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        return {"pos_embed", "cls_token"}

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x.view(len(x), 3, 2))
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embed
        return self.head((tokens + self.gamma * self.block(tokens))[:, 0])


class ChannelNorm(nn.Module):
    """A norm whose scale has as many axes as its inputs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * x.square().mean(1, keepdim=True).add(1e-6).rsqrt()


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 8, 3, padding=1), ChannelNorm(8)
        self.act, self.head = nn.PReLU(), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.conv(x.unsqueeze(1)))).mean(-1))


class Image(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron()

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image.flatten(1))


class Masked(nn.Module):
    """torch's transformer, whose mask is a batch's entry."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, CLASSES)
        self.body = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

    def forward(self, words: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is not None
        x = self.embed(words)
        return self.head(self.body(x, x, src_key_padding_mask=~mask, memory_key_padding_mask=~mask).mean(1))


class AnyNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, CLASSES)

    def forward(self, **batch: Any) -> Tensor:
        return self.head((self.embed(batch["words"]) * batch["mask"].unsqueeze(-1)).mean(1))


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron(2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class PerPixel(nn.Module):
    """Scores of each pixel, with the classes second as torch has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, CLASSES, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pooled(nn.Module):
    """Sums over the nodes of each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, nodes: Tensor, number: Tensor) -> Tensor:
        hidden = self.body(nodes).relu()
        count = int(number.max()) + 1
        return self.head(hidden.new_zeros(count, 8).index_add(0, number, hidden))


class PooledWhole(Pooled):
    def forward(self, batch: GraphBatch) -> Tensor:  # type: ignore[override]
        return super().forward(batch.nodes.sub_(0.1), batch.number)  # in place: each trial has a batch of its own


class Neighbours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, 2)

    def forward(self, x: Tensor, near: Tensor) -> Tensor:
        return self.body(near @ x / near.sum(1, keepdim=True))


class Attributes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron()

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features)


class OwnSplit(wdsearch.RegularizedModule):
    """Takes its batches apart itself, and changes them in place."""

    def __init__(self, **options: Any) -> None:
        super().__init__(perceptron(), **options)

    def split(self, batch: Any) -> tuple[wdsearch.Inputs, Tensor]:
        return wdsearch.Inputs((batch.x.mul_(1.5),)), batch.kinds


class Opaque:
    """A batch of which nobody else knows anything."""

    def __init__(self, rows: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.x, self.kinds = (torch.stack(column) for column in zip(*rows, strict=True))


class InMapping(nn.Module):
    """Takes a mapping of tensors as its argument."""

    def __init__(self) -> None:
        super().__init__()
        self.body = perceptron()

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return self.body(x["features"])


def mappings(count: int, generator: torch.Generator) -> list[dict[str, Any]]:
    return [{"row": {"features": x}, "target": y} for x, y in table(count, generator)]


class Straight(torch.autograd.Function):
    """A function in the old form, as sparsemax and gradient reversal are written."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Shared(nn.Module):
    """One layer in two places, as TabNet shares its first ones, in a network that vmap cannot lift."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(FEATURES, FEATURES)
        self.a, self.b = nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared, nn.Tanh())
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Straight.apply(self.b(self.a(x))))


class Parametrized(nn.Module):
    """A parametrized layer, which has a class of its own, beside a layer that vmap cannot lift."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = parametrizations.orthogonal(nn.Linear(FEATURES, FEATURES))
        self.memory, self.head = nn.GRU(FEATURES, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(self.turn(x).unsqueeze(1))[0][:, -1])


class Spectrum(nn.Module):
    """Learned frequencies, of which the first parameter is complex."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(0.3 * torch.randn(FEATURES // 2 + 1, 8, dtype=torch.complex64))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((torch.fft.rfft(x) @ self.mix).abs())


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.segment = nn.Linear(FEATURES, 8), nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Tanh())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.segment, self.first(x), use_reentrant=True))


def scripted() -> nn.Module:
    return torch.jit.script(perceptron())


# -- the table --------------------------------------------------------------------------------------------------------


def positional(network: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    return network(*batch[:-1]), batch[-1]


def first_of_tuple(network: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    return network(batch[0])[0], batch[1]


def by_words(network: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    return network(words=batch["words"], mask=batch["mask"]), batch["labels"]


def one_logit(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs.reshape(-1), targets.float())


@dataclass(frozen=True)
class Written:
    """A network, its data, the parameters that decay, and why it is trained alone, if it is.

    `call` is that of a plain loop, `model` that of the study if it is not the network.
    """

    build: Callable[[], nn.Module]
    data: Callable[[], Data]
    decayed: tuple[str, ...]
    alone: str | None = None
    call: Callable[[nn.Module, Any], tuple[Tensor, Tensor]] = positional
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    precise: bool = False
    model: Any = None


TWO = ("body.0.weight", "body.2.weight")
BLOCK = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
CROSS = ("multihead_attn.in_proj_weight", "multihead_attn.out_proj.weight")
WORDS: dict[str, Any] = {"data": lambda: Data(padded), "call": by_words}

WRITTEN: dict[str, Written] = {
    "scores and attention": Written(Attended, lambda: Data(table), ("gate.weight", "head.weight"), call=first_of_tuple),
    "one logit, integers": Written(Squeezed, lambda: Data(binary(torch.long)), TWO, loss=one_logit),
    "one logit, floats": Written(Squeezed, lambda: Data(binary(torch.float)), TWO, loss=one_logit),
    "one logit, a column": Written(
        lambda: perceptron(1), lambda: Data(binary(torch.long)), ("0.weight", "2.weight"), loss=one_logit
    ),
    "old weight norm": Written(
        Temporal, lambda: Data(table), ("conv.weight_v", "head.weight"), r"^conv \(Conv1d\): .*weight_norm"
    ),
    "no_weight_decay": Written(
        Vision, lambda: Data(table), ("patch.weight", *(f"block.{name}" for name in BLOCK), "head.weight")
    ),
    "norm of its own": Written(Normed, lambda: Data(table), ("conv.weight", "head.weight")),
    "files": Written(
        Image, lambda: Data(files), TWO, call=lambda net, batch: (net(image=batch["image"]), batch["label"])
    ),
    "padding mask": Written(
        Masked,
        alone="nested_tensor",
        decayed=(
            *(f"body.{side}.layers.0.{name}" for side in ("encoder", "decoder") for name in BLOCK),
            *(f"body.decoder.layers.0.{name}" for name in CROSS),
            "head.weight",
        ),
        **WORDS,
    ),
    "any names": Written(AnyNames, decayed=("head.weight",), **WORDS),
    "stream": Written(perceptron, lambda: Data(Stream), ("0.weight", "2.weight")),
    "64 bits": Written(
        Double, lambda: Data(arrays), TWO, call=lambda net, batch: (net(batch[0]), batch[1].long()), precise=True
    ),
    "pixels": Written(PerPixel, lambda: Data(pixels), ("conv.weight",)),
    "graphs as tensors": Written(Pooled, lambda: Data(graphs, 70, as_tensors), ("body.weight", "head.weight")),
    "graphs as an object": Written(
        Pooled,
        lambda: Data(graphs, 70, GraphBatch),
        ("body.weight", "head.weight"),
        call=lambda net, batch: (net(batch.nodes, batch.number), batch.y),
    ),
    "graphs as a whole": Written(
        PooledWhole,
        lambda: Data(graphs, 70, GraphBatch),
        ("body.weight", "head.weight"),
        call=lambda net, batch: (net(batch), batch.y),
    ),
    "square matrix": Written(Neighbours, lambda: Data(one_graph, 70, within), ("body.weight",)),
    "dataclass": Written(
        Attributes,
        lambda: Data(table, collate=as_dataclass),
        TWO,
        call=lambda net, batch: (net(batch.features), batch.target),
    ),
    "mapping in a mapping": Written(
        InMapping, lambda: Data(mappings), TWO, call=lambda net, batch: (net(batch["row"]), batch["target"])
    ),
    "split of its own": Written(
        perceptron,
        lambda: Data(table, collate=Opaque),
        ("0.weight", "2.weight"),
        model=OwnSplit,
        call=lambda net, batch: (net(1.5 * batch.x), batch.kinds),
    ),
    "shared layer": Written(Shared, lambda: Data(table), ("a.0.weight", "head.weight"), "Shared"),
    "parametrized": Written(
        Parametrized,
        lambda: Data(table),
        ("turn.parametrizations.weight.original", "memory.weight_ih_l0", "memory.weight_hh_l0", "head.weight"),
        r"^memory \(GRU\)",
    ),
    "complex first": Written(Spectrum, lambda: Data(table), ("mix", "head.weight"), "mix is complex"),
    "recomputed": Written(
        Recomputed, lambda: Data(table), ("first.weight", "segment.0.weight", "head.weight"), "Recomputed"
    ),
    "scripted": Written(scripted, lambda: Data(table), ("0.weight", "2.weight"), "compiled by torch.jit"),
}
"""Each network and form of batch by what is special about it."""
