"""Data sets of torchvision, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wdsearch.datasets._streams import Reader, StreamDataModule
from wdsearch.datasets.images import ImageReader, colours, side_lengths
from wdsearch.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_TARGETS = ("targets", "labels", "_labels")
_VALIDATION, _TEST = ("val", "valid"), ("test",)


class TorchvisionData(StreamDataModule):
    """A data set of torchvision's by the name of its class, as `CIFAR10`, downloaded if it is not in `root`; wdsearch[vision].

    Its training, validation and test images, as far as it has them; the other parts are split from the training images.
    `size` and `channels` are by default those of its first image. `options` are arguments of torchvision's class.
    Images that do not fit into memory are read batch by batch: see `StreamDataModule`. Raises DataError.
    """

    from_study = ("folder",)

    def __init__(
        self,
        dataset: str,
        root: str | Path = "data",
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        validation: float = 0.2,
        test: float = 0.2,
        options: Mapping[str, Any] | None = None,
        class_weight: str | Mapping[str, float] | None = None,
        batch_size: int = 100,
        in_memory: bool | None = None,
        split_seed: int = 0,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        super().__init__(split_seed, seed, batch_size)
        self.dataset, self.root = dataset, Path(folder or "", root)
        self.options = dict(options or {})
        self.size = None if size is None else side_lengths(size)
        self.channels = None if channels is None else colours(channels)
        self.validation, self.test = validation, test
        self.class_weight, self.in_memory = class_weight, in_memory

    def sources(self) -> dict[str, tuple[Reader, np.ndarray]]:
        """Readers of the images of each part."""
        datasets = self._datasets()
        first = _image(datasets["train"], 0)
        size = self.size or (first.height, first.width)
        shape = (self.channels or (1 if first.mode in ("1", "L") else 3), *size)
        targets = {name: _targets(dataset) for name, dataset in datasets.items()}
        count = int(targets["train"].max()) + 1
        names = getattr(datasets["train"], "classes", None)
        self.classes = tuple(map(str, names if names and len(names) == count else range(count)))
        images = sum(map(len, targets.values()))
        self.about = f"{self.dataset}: one of {count} classes, {images:,} images of {'×'.join(map(str, size))}"
        readers = {name: _Reader(dataset, shape, f"{self.dataset} {name}") for name, dataset in datasets.items()}
        return {name: (reader, targets[name]) for name, reader in readers.items()}

    def _datasets(self) -> dict[str, Any]:
        """Data sets of torchvision for the parts that it has."""
        from wdsearch.messages import nearest

        datasets = _torchvision()
        known = [name for name in datasets.__all__ if "root" in inspect.signature(getattr(datasets, name)).parameters]
        if self.dataset not in known:
            raise DataError(f"torchvision has no data set {self.dataset!r}{nearest(self.dataset, known)}")
        builder = getattr(datasets, self.dataset)
        parameters = inspect.signature(builder).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if "train" in parameters or ("split" in self.options and takes_any):
            return {"train": self._one(builder, train=True), "test": self._one(builder, train=False)}
        if "split" not in parameters or "split" in self.options:
            return {"train": self._one(builder)}
        by_part = {"train": self._one(builder, split="train")}
        for part, names in (("validation", _VALIDATION), ("test", _TEST)):
            splits = (self._split_or_none(builder, name) for name in names)
            dataset = next(filter(None, splits), None)
            by_part |= {} if dataset is None else {part: dataset}
        return by_part

    def _split_or_none(self, builder: Any, split: str) -> Any:
        """A split, None if torchvision knows none of this name."""
        try:
            return self._one(builder, split=split)
        except ValueError:
            return None

    def _one(self, builder: Any, **part: Any) -> Any:
        """One of the parts, downloaded if it is not in the root."""
        arguments = self.options | part
        try:
            return builder(self.root, **arguments)
        except RuntimeError as error:  # raised by torchvision if the files are missing
            if "download" not in inspect.signature(builder).parameters and self.dataset != "EMNIST":
                text = f"{error}; torchvision does not download it: put its files into {self.root}"
                raise DataError(f"{self.dataset}: {text}") from error
        except (TypeError, OSError) as error:
            raise DataError(f"{self.dataset}({self.root}, {arguments}): {error}") from error
        try:
            return builder(self.root, download=True, **arguments)
        except (OSError, RuntimeError) as error:
            text = f"is not in {self.root}, and cannot be downloaded: {error}"
            raise DataError(f"{self.dataset} {text}; run where there is a network, or put its files there") from error


class _Reader(ImageReader):
    """Reader of the images of a data set of torchvision."""

    def __init__(self, dataset: Any, shape: tuple[int, int, int], name: str) -> None:
        self.name = name
        super().__init__(len(dataset), lambda number: _image(dataset, number), shape)

    def fingerprint(self) -> Any:
        """Bytes of the name and the number of rows: torchvision has checked the files."""
        yield self.name.encode()
        yield from super().fingerprint()


def _torchvision() -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise DataError('torchvision is not installed: pip install "wdsearch[vision]"') from error
    except RuntimeError as error:  # its operators were made for another torch
        import torch

        text = f"torchvision does not fit torch {torch.__version__}: {error}"
        raise DataError(f"{text}; install the pair that https://pytorch.org/get-started names") from error
    return datasets


def _image(dataset: Any, number: int) -> Image:
    return dataset[number][0]


def _targets(dataset: Any) -> np.ndarray:
    """Class numbers; images are read for them only if the data set keeps no list of them."""
    listed = next((getattr(dataset, name) for name in _TARGETS if hasattr(dataset, name)), None)
    values = [dataset[number][1] for number in range(len(dataset))] if listed is None else listed
    targets = np.asarray(values)
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise DataError(f"{type(dataset).__name__} has targets of shape {targets.shape}, not a class for each image")
    return targets.astype(np.int64)
