"""What is told before any trial is trained: batches that do not suit the network."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from wdsearch.errors import BuildError
from wdsearch.models.mlp import mlp
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import load_study


class LastOfOne(L.LightningDataModule):
    """21 training rows in batches of 10."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.rows = TensorDataset(torch.randn(21, 4), torch.arange(21) % 2)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, batch_size=10, shuffle=True, **self.options)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, batch_size=21)


class Normalized(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def notes(network: Any, **options: Any) -> list[str]:
    space = {"weight_decay": {"low": 1e-3, "high": 1.0, "log": True}}
    study = {"study": "lone", "model": network, "space": space, "budget": {"trials": 2, "epochs": 2}}
    config = load_study(study | {"data": LastOfOne(**options)})
    return TrialFactory(config, build_data(config)).notes


def test_a_last_batch_of_one_row_is_told_where_batch_norm_takes_its_variance() -> None:
    (note,) = notes(lambda: mlp(4, 2, hidden=[8], norm="batch"))
    assert "has one row, which has no variance for batch norm (norm1): its running variance is wrong by it" in note
    with pytest.raises(
        BuildError, match=r"batch norm \(1\): Expected more than 1 value .*; give the loader drop_last=True"
    ):
        notes(Normalized)
    assert notes(Normalized, drop_last=True) == []
    assert notes(lambda: mlp(4, 2, hidden=[8])) == []
