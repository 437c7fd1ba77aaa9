"""Data of a user's own kind in small, and what the data sets that need arguments are given in the tests."""

import atexit
import struct
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

from wdsearch.datasets import DATASETS, ArrayDataModule


def cancer() -> pd.DataFrame:
    """Classes, gaps, categories with gaps, and columns of no use."""
    frame = load_breast_cancer(as_frame=True).frame
    frame["diagnosis"] = frame.pop("target").map({0: "malignant", 1: "benign"})
    frame.insert(0, "patient_id", range(1000, 1000 + len(frame)))
    frame["ward"] = [["north", "south", None, 'it\'s "east"'][row % 4] for row in range(len(frame))]
    frame["smoker"] = [row % 3 == 0 for row in range(len(frame))]
    frame.loc[::17, "mean radius"] = None
    frame.loc[5, "diagnosis"] = None
    return frame.assign(note=[f"note {row}" for row in range(len(frame))], year=2020, nothing=None)


def dataset(name: str, **arguments: Any) -> ArrayDataModule:
    """A data set of the table, set up, on data of ours if it needs some."""
    data = DATASETS[name](**(_needed(name) | arguments))
    data.setup()
    return data


def _needed(name: str) -> dict[str, Any]:
    if name == "table":
        return {"path": cancer(), "target": "diagnosis", "drop": ["patient_id", "note", "ward", "smoker"]}
    if name == "images":
        return {"path": digit_images(), "size": 8, "channels": 1}
    if name == "openml":
        return {"dataset": 42585, "root": openml_folder(), "drop": ["island", "sex"]}
    if name == "torchvision":
        pytest.importorskip("torchvision")
        return {"dataset": "MNIST", "root": mnist_folder(), "size": 14}
    return {}


@cache
def digit_images() -> Path:
    """300 digits as PNG files, a folder for each class."""
    folder = Path(mkdtemp(prefix="wdsearch_digits_"))
    atexit.register(rmtree, folder)
    images, targets = load_digits(return_X_y=True)
    for number, (image, target) in enumerate(zip(images[:300], targets[:300], strict=True)):
        place = folder / f"digit {target}"
        place.mkdir(exist_ok=True)
        Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8)).save(place / f"{number:03}.png")
    return folder


@cache
def openml_folder() -> Path:
    """Folder in which scikit-learn keeps what it has from openml.org: answers about penguins, as in its tests."""
    folder = Path(mkdtemp(prefix="wdsearch_openml_"))
    atexit.register(rmtree, folder)
    answers = Path(sklearn.datasets.__file__).parent / "tests" / "data" / "openml" / "id_42585"
    places = {
        "api-v1-jd-42585.json.gz": "api/v1/json/data/42585.gz",
        "api-v1-jdf-42585.json.gz": "api/v1/json/data/features/42585.gz",
        "api-v1-jdq-42585.json.gz": "api/v1/json/data/qualities/42585.gz",
        "data-v1-dl-21854866.arff.gz": "data/v1/download/21854866/penguins.arff.gz",
    }
    for name, place in places.items():
        path = folder / "openml" / "openml.org" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((answers / name).read_bytes())
    return folder


@cache
def mnist_folder() -> Path:
    """200 digits, enlarged, in the files in which MNIST comes."""
    folder = Path(mkdtemp(prefix="wdsearch_mnist_"))
    atexit.register(rmtree, folder)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, targets = load_digits(return_X_y=True)
    large = np.kron(images.reshape(-1, 8, 8), np.ones((3, 3))).astype(np.uint8) * 15
    padded = np.pad(large, ((0, 0), (2, 2), (2, 2)))
    for part, rows in {"train": slice(0, 200), "t10k": slice(200, 300)}.items():
        chosen, labels = padded[rows], targets[rows].astype(np.uint8)
        header = struct.pack(">IIII", 2051, len(chosen), 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + chosen.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + labels.tobytes())
    return folder


def batches(data: Any) -> list[torch.Tensor]:
    """Everything that a study asks of them."""
    loaders = [data.train_dataloader(), data.train_eval_dataloader(), data.val_dataloader(), data.test_dataloader()]
    return [tensor for loader in loaders for batch in loader for tensor in batch]
