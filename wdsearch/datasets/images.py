"""Images of the user's: a folder for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wdsearch.datasets._streams import Reader, StreamDataModule
from wdsearch.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class ImageFolder(StreamDataModule):
    """Images in a folder for each class: `path/cats/1.png`, or `path/train/cats/1.png`, `path/val/...`, `path/test/...`.

    `path` is seen from the study's folder. What has no folder there is split from the training images: `validation` and `test`
    are shares of them. Images are scaled and cropped to `size`, a side in pixels or (height, width), turned to gray (`channels`
    1) or colours (3), and standardised by channel. What does not fit into memory is read batch by batch: see
    `StreamDataModule`. Raises DataError.
    """

    from_study = ("folder",)

    def __init__(
        self,
        path: str | Path,
        size: int | Sequence[int] = 32,
        channels: int = 3,
        validation: float = 0.2,
        test: float = 0.2,
        class_weight: str | Mapping[str, float] | None = None,
        batch_size: int = 100,
        in_memory: bool | None = None,
        split_seed: int = 0,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        super().__init__(split_seed, seed, batch_size)
        self.path, self.size, self.channels = Path(folder or "", path), side_lengths(size), colours(channels)
        self.validation, self.test, self.class_weight, self.in_memory = validation, test, class_weight, in_memory

    def sources(self) -> dict[str, tuple[Reader, np.ndarray]]:
        """Readers of the files of each part."""
        places = _parts(self.path)
        self.classes = _classes(places["train"])
        found = {name: _files(place, self.classes) for name, place in places.items()}
        counted = sum(len(files) for files, _ in found.values())
        self.about = f"one of {len(self.classes)} classes, {counted:,} images of {'×'.join(map(str, self.size))}"
        shape = (self.channels, *self.size)
        return {name: (FileReader(files, shape), targets) for name, (files, targets) in found.items()}


class ImageReader:
    """Images by their numbers, as (images, channels, height, width) of whole numbers from 0 to 255."""

    def __init__(self, count: int, opened: Callable[[int], Image], shape: tuple[int, int, int]) -> None:
        self.count, self.opened, self.shape = count, opened, shape

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Some images, read side by side: the decoders run without Python's lock."""
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            return np.stack(list(threads.map(self._one, numbers.tolist())))

    def _one(self, number: int) -> np.ndarray:
        from PIL import ImageOps

        channels, *size = self.shape
        image = ImageOps.exif_transpose(self.opened(number)).convert("L" if channels == 1 else "RGB")
        found = np.asarray(ImageOps.fit(image, (size[1], size[0])))
        return found.reshape(*size, channels).transpose(2, 0, 1)

    def fingerprint(self) -> Iterator[bytes]:
        """How many there are."""
        yield repr((self.count, self.shape)).encode()


class FileReader(ImageReader):
    """Images in files."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int]) -> None:
        self.files = files
        super().__init__(len(files), self._open, shape)

    def _open(self, number: int) -> Image:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self.files[number]) as image:
                image.draft(
                    image.mode, (2 * self.shape[2], 2 * self.shape[1])
                )  # a JPEG is decoded at a fraction of its size
                image.load()
                return image
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise DataError(
                f"{self.files[number]} cannot be read as an image: {error}; mend it or take it away"
            ) from error

    def fingerprint(self) -> Iterator[bytes]:
        """Names, sizes and times of the files."""
        yield from super().fingerprint()
        for file in self.files:
            found = file.stat()
            yield repr((file.parent.name, file.name, found.st_size, found.st_mtime_ns)).encode()


def side_lengths(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width). Raises ValueError."""
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or not all(isinstance(side, int) and side > 0 for side in both):
        raise ValueError(f"size is {size!r}; it is a side in pixels, or [height, width]")
    return both[0], both[1]


def colours(channels: int) -> int:
    """1 or 3. Raises ValueError."""
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; it is 1 for gray or 3 for colours")
    return channels


def _parts(path: Path) -> dict[str, Path]:
    """The folders of the parts that are there; the whole folder if it has none for training."""
    if not path.is_dir():
        raise DataError(f"{path} is not a folder")
    found = {part: path / name for part, names in PARTS.items() for name in reversed(names) if (path / name).is_dir()}
    return found if "train" in found else {"train": path}


def _classes(path: Path) -> tuple[str, ...]:
    names = sorted(place.name for place in path.iterdir() if place.is_dir() and not place.name.startswith("."))
    if len(names) < 2:
        held = f"has {'one' if names else 'none'}"
        raise DataError(f"{path} {held} where a folder for each class is expected, as in {path}/cats/1.png")
    return tuple(names)


def _files(path: Path, classes: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    """The images of each class in the order of their names, and their class numbers."""
    unknown = {place.name for place in path.iterdir() if place.is_dir() and not place.name.startswith(".")} - {*classes}
    if unknown:
        raise DataError(f"{path} has the class {min(unknown)}, which the training images do not have")
    files, targets = [], []
    for number, name in enumerate(classes):
        found = sorted(file for file in (path / name).rglob("*") if file.suffix.lower() in ENDINGS)
        if not found:
            raise DataError(f"{path / name} has no images: files that end in {', '.join(ENDINGS)}")
        files += found
        targets += [number] * len(found)
    return files, np.array(targets)
