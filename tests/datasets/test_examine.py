"""Data that would make every trial worthless are refused before training, with what to do."""

import numpy as np
import pytest
import torch
from support.samples import dataset

import wdsearch
from wdsearch.datasets import DATASETS
from wdsearch.datasets._base import ArrayDataModule, Arrays
from wdsearch.datasets.examine import _digests, examine
from wdsearch.errors import BuildError, DataError


class Own(ArrayDataModule):
    """Rows as given, split as they lie."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, task: str = "classification") -> None:
        super().__init__()
        self.task, self.rows = task, (inputs, targets)

    def splits(self) -> dict[str, Arrays]:
        inputs, targets = self.rows
        thirds = zip(np.array_split(inputs, 3), np.array_split(targets, 3), strict=True)
        return {name: Arrays(*part) for name, part in zip(("train", "validation", "test"), thirds, strict=True)}


def data(rows: int = 90) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(rows, 5)), np.arange(rows) % 3


def examined(inputs: np.ndarray, targets: np.ndarray, task: str = "classification") -> list[str]:
    module = Own(inputs, targets, task)
    module.setup()
    return examine(module, task)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_shipped_data_sets_are_flawless(name: str) -> None:
    module = dataset(name)
    assert examine(module, module.task) == [*getattr(module, "notes", ())]


def test_values_that_are_not_finite_are_refused_with_rows_and_columns() -> None:
    inputs, targets = data()
    inputs[[3, 5], 2] = np.nan
    with pytest.raises(DataError, match=r"2 of 30 training rows have NaN or infinite inputs \(columns 2\)"):
        examined(inputs, targets)
    inputs, _ = data()
    with pytest.raises(DataError, match=r"1 of 30 validation rows have NaN or infinite targets"):
        examined(inputs, np.where(np.arange(90) == 40, np.nan, np.arange(90.0)), "regression")


def test_one_class_only_in_a_part_is_refused() -> None:
    inputs, targets = data()
    targets[30:60] = 2
    with pytest.raises(DataError, match="all 30 validation rows are of class 2"):
        examined(inputs, targets)


def test_labels_that_are_no_class_numbers_are_refused() -> None:
    inputs, targets = data()
    with pytest.raises(DataError, match=r"training targets go from -1 to 1; allowed are class numbers 0 to 1"):
        examined(inputs, targets - 1)
    targets[45] = 7
    with pytest.raises(DataError, match=r"validation targets go from 0 to 7; allowed are class numbers 0 to 2"):
        examined(inputs, targets)


def test_an_empty_part_is_refused() -> None:
    module = Own(*data())
    module.setup()
    empty = torch.utils.data.TensorDataset(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    module.parts["validation"] = empty
    with pytest.raises(DataError, match="the validation part is empty"):
        examine(module, "classification")


def test_rows_in_both_parts_are_a_warning_that_counts_them() -> None:
    inputs, targets = data()
    inputs[30:36] = inputs[:6]
    (text,) = examined(inputs, targets)
    assert text.startswith("6 of 30 validation rows (20%) are among the training rows as well")


def test_rows_that_differ_in_two_signs_alone_are_different() -> None:
    first, second = _digests([torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])])
    assert first != second


def test_what_cannot_be_built_is_said_with_its_arguments() -> None:
    study = {"study": "s", "data": {"name": "digits", "init_args": {"batch_size": 0}}, "model": "mlp"}
    space = {"space": {"weight_decay": {"low": 0.0, "high": 1.0}}, "budget": {"trials": 2, "epochs": 2}}
    with pytest.raises(BuildError, match=r"digits\(.*batch_size=0\) cannot be built: ValueError: batch_size is 0"):
        wdsearch.run(study | space, progress=False)

    def picky(width: int = 3) -> torch.nn.Module:
        raise ValueError(f"{width} is odd")

    with pytest.raises(BuildError, match=r"picky\(\) cannot be built: ValueError: 3 is odd"):
        wdsearch.run(study | space | {"data": "digits", "model": picky}, progress=False)


def test_targets_that_do_not_vary_are_said() -> None:
    inputs, varied = np.random.default_rng(0).normal(size=(90, 5)), np.arange(90.0)
    late = np.where(varied < 30, varied, 5.0)
    assert examined(inputs, late, "regression") == [
        "all 30 validation targets are 5: R² is undefined, for it divides by their variance, and is left out"
    ]
    module = Own(inputs, late, "regression")
    module.setup()
    with pytest.raises(DataError, match=r"val_r2 is undefined, .*; judge by val_loss or val_rmse"):
        examine(module, "regression", ["val_r2"])
    with pytest.raises(DataError, match="all 30 training targets are 3: there is nothing to learn"):
        examined(inputs, np.where(varied < 30, 3.0, varied), "regression")
