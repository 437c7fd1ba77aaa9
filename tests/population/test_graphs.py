"""Batches that are objects, as the graphs of PyTorch Geometric: they copy and convert themselves."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from support.training import largest_difference, train_alone, train_fused
from torch import Tensor, nn
from torch.utils.data import DataLoader

import wdsearch
from wdsearch.population.fusibility import why_alone
from wdsearch.trial.batches import changed
from wdsearch.trial.module import RegularizedModule


class Graph:
    """Graphs of two nodes each, joined into one."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self.x = torch.randn(16, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
        self.batch, self.y = torch.arange(16) // 2, torch.arange(8) % 3

    def apply(self, change: Callable[[Tensor], Tensor]) -> "Graph":
        vars(self).update({name: change(value) for name, value in vars(self).items()})
        return self

    def clone(self) -> "Graph":
        return copy.copy(self).apply(Tensor.clone)

    def to(self, device: Any, **_: Any) -> "Graph":
        return copy.copy(self).apply(lambda x: x.to(device))


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop, self.head = nn.Linear(5, 6), nn.Dropout(0.1), nn.Linear(6, 3)

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        nodes = self.drop(self.inner(x).tanh())
        return self.head(torch.zeros(8, 6, dtype=x.dtype).index_add(0, batch, nodes))


class Graphs(L.LightningDataModule):
    task, metric = "classification", "accuracy"

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.graphs = [Graph(seed, dtype) for seed in range(2)]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.graphs, batch_size=None)

    val_dataloader = train_eval_dataloader = train_dataloader


def trials() -> dict[int, RegularizedModule]:
    built = {}
    for number in range(3):
        torch.manual_seed(0)
        built[number] = RegularizedModule(Pooled(), {"weight_decay": 0.1 * number, "dropout": 0.2 * number}, seed=3)
    return built


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trials_on_graphs_are_fused_and_equal_each_alone(dtype: torch.dtype) -> None:
    assert why_alone(list(trials().values()), Graph(0), Graph(1)) is None
    ends = train_fused(trials(), Graphs(dtype), 2)
    for number, module in trials().items():
        train_alone(module, Graphs(dtype), 2)
        assert largest_difference(module.state_dict(), ends.states[number]) <= 1e-12


def test_a_graph_is_converted_as_a_copy() -> None:
    graph = Graph(0)
    (twin, kept), name = changed([graph, torch.ones(2)], lambda x: x.double()), "x"
    assert (getattr(twin, name).dtype, kept.dtype) == (torch.float64, torch.float64)
    assert graph.x.dtype == torch.float32


@pytest.mark.parametrize("precision", [32, 64])
def test_a_study_on_graphs_runs_in_any_precision(precision: int, tmp_path: Path) -> None:
    study = {
        "study": "graphs",
        "model": Pooled,
        "data": Graphs(torch.float32),
        "space": {"weight_decay": {"low": 0.1, "high": 1.0}},
        "budget": {"trials": 2, "epochs": 1},
        "trainer": {"accelerator": "cpu", "precision": precision},
    }
    assert wdsearch.run(study, home=tmp_path, progress=False).counts["complete"] == 2
