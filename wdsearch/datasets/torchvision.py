"""Images that torchvision knows by name."""

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

    Its own training and test images, and validation images if it has some; what it has not is split from the training images.
    `size` and `channels` are those of its first image unless given. `options` are arguments of torchvision's class.
    What does not fit into memory is read batch by batch: see `StreamDataModule`. Raises DataError.
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
        self.dataset, self.root, self.options = dataset, Path(folder or "", root), dict(options or {})
        self.size = None if size is None else side_lengths(size)
        self.channels = None if channels is None else colours(channels)
        self.validation, self.test, self.class_weight, self.in_memory = validation, test, class_weight, in_memory

    def sources(self) -> dict[str, tuple[Reader, np.ndarray]]:
        """Readers of the images of each part."""
        made = self._made()
        first = _image(made["train"], 0)
        size = self.size or (first.height, first.width)
        shape = (self.channels or (1 if first.mode in ("1", "L") else 3), *size)
        targets = {name: _targets(found) for name, found in made.items()}
        count = int(targets["train"].max()) + 1
        names = getattr(made["train"], "classes", None)
        self.classes = tuple(map(str, names if names and len(names) == count else range(count)))
        counted = sum(map(len, targets.values()))
        self.about = f"{self.dataset}: one of {count} classes, {counted:,} images of {'×'.join(map(str, size))}"
        return {name: (_Reader(found, shape, f"{self.dataset} {name}"), targets[name]) for name, found in made.items()}

    def _made(self) -> dict[str, Any]:
        """torchvision's data sets of the parts that it has."""
        from wdsearch.messages import nearest

        datasets = _torchvision()
        known = [name for name in datasets.__all__ if "root" in inspect.signature(getattr(datasets, name)).parameters]
        if self.dataset not in known:
            raise DataError(f"torchvision has no data set {self.dataset!r}{nearest(self.dataset, known)}")
        builder = getattr(datasets, self.dataset)
        taken = inspect.signature(builder).parameters
        by_flag = "train" in taken or ("split" in self.options and any(p.kind is p.VAR_KEYWORD for p in taken.values()))
        if by_flag:
            return {"train": self._one(builder, train=True), "test": self._one(builder, train=False)}
        if "split" not in taken or "split" in self.options:
            return {"train": self._one(builder)}
        found = {"train": self._one(builder, split="train")}
        for part, names in (("validation", _VALIDATION), ("test", _TEST)):
            made = next(filter(None, (self._if_there(builder, name) for name in names)), None)
            found |= {} if made is None else {part: made}
        return found

    def _if_there(self, builder: Any, split: str) -> Any:
        """A split, None if torchvision knows none of this name."""
        try:
            return self._one(builder, split=split)
        except ValueError:
            return None

    def _one(self, builder: Any, **which: Any) -> Any:
        """One of the parts, downloaded if it is not there."""
        given = self.options | which
        try:
            return builder(self.root, **given)
        except RuntimeError as error:  # what torchvision raises where there are no files
            if "download" not in inspect.signature(builder).parameters and self.dataset != "EMNIST":
                text = f"{error}; torchvision does not download it: put its files into {self.root}"
                raise DataError(f"{self.dataset}: {text}") from error
        except (TypeError, OSError) as error:
            raise DataError(f"{self.dataset}({self.root}, {given}): {error}") from error
        try:
            return builder(self.root, download=True, **given)
        except (OSError, RuntimeError) as error:
            text = f"is not in {self.root}, and cannot be downloaded: {error}"
            raise DataError(f"{self.dataset} {text}; run where there is a network, or put its files there") from error


class _Reader(ImageReader):
    """Images of a data set of torchvision's."""

    def __init__(self, found: Any, shape: tuple[int, int, int], name: str) -> None:
        self.name = name
        super().__init__(len(found), lambda number: _image(found, number), shape)

    def fingerprint(self) -> Any:
        """Name and number of rows: torchvision has checked the files."""
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


def _image(found: Any, number: int) -> Image:
    return found[number][0]


def _targets(found: Any) -> np.ndarray:
    """Class numbers; images are read for them only where the data set keeps no list of them."""
    listed = next((getattr(found, name) for name in _TARGETS if hasattr(found, name)), None)
    values = [found[number][1] for number in range(len(found))] if listed is None else listed
    targets = np.asarray(values)
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise DataError(f"{type(found).__name__} has targets of shape {targets.shape}, not a class for each image")
    return targets.astype(np.int64)
