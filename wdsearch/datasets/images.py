"""Data of image files, in a folder for each class."""

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

    `path` is relative to the study's folder. Parts without a folder are split from the training images: `validation` and `test`
    are shares of them. Images are scaled and cropped to `size`, a side in pixels or (height, width), converted to gray
    (`channels` 1) or colours (3), and standardised by channel. Images that do not fit into memory are read batch by batch: see
    `StreamDataModule`. Raises DataError.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(20):
    ...         path = Path(folder, ["cats", "dogs"][number % 2], f"{number}.png")
    ...         path.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    ...     data = ImageFolder(folder, size=4)
    ...     data.setup()
    >>> data.about, data.shape
    ('one of 2 classes, 20 images of 4×4', (3, 4, 4))
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
        self.path = Path(folder or "", path)
        self.size, self.channels = side_lengths(size), colours(channels)
        self.validation, self.test = validation, test
        self.class_weight, self.in_memory = class_weight, in_memory

    def sources(self) -> dict[str, tuple[Reader, np.ndarray]]:
        """Readers of the files of each part."""
        folders = _parts(self.path)
        self.classes = _classes(folders["train"])
        files_and_targets = {name: _files(folder, self.classes) for name, folder in folders.items()}
        count = sum(len(files) for files, _ in files_and_targets.values())
        self.about = f"one of {len(self.classes)} classes, {count:,} images of {'×'.join(map(str, self.size))}"
        shape = (self.channels, *self.size)
        return {name: (FileReader(files, shape), targets) for name, (files, targets) in files_and_targets.items()}


class ImageReader:
    """Reader of images by their numbers, as (images, channels, height, width) of integers from 0 to 255."""

    def __init__(self, count: int, open_image: Callable[[int], Image], shape: tuple[int, int, int]) -> None:
        self.count, self.shape = count, shape
        self.open_image = open_image

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Read some images in threads: the decoders run without Python's lock."""
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            return np.stack(list(threads.map(self._one, numbers.tolist())))

    def _one(self, number: int) -> np.ndarray:
        from PIL import ImageOps

        channels, *size = self.shape
        image = ImageOps.exif_transpose(self.open_image(number)).convert("L" if channels == 1 else "RGB")
        pixels = np.asarray(ImageOps.fit(image, (size[1], size[0])))
        return pixels.reshape(*size, channels).transpose(2, 0, 1)

    def fingerprint(self) -> Iterator[bytes]:
        """Bytes of the number of images and their shape."""
        yield repr((self.count, self.shape)).encode()


class FileReader(ImageReader):
    """Reader of image files."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int]) -> None:
        self.files = files
        super().__init__(len(files), self._open, shape)

    def _open(self, number: int) -> Image:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self.files[number]) as image:
                # decodes a JPEG at a fraction of its size
                image.draft(image.mode, (2 * self.shape[2], 2 * self.shape[1]))
                image.load()
                return image
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise DataError(
                f"{self.files[number]} cannot be read as an image: {error}; mend it or take it away"
            ) from error

    def fingerprint(self) -> Iterator[bytes]:
        """Bytes of the names, sizes and times of the files."""
        yield from super().fingerprint()
        for file in self.files:
            status = file.stat()
            yield repr((file.parent.name, file.name, status.st_size, status.st_mtime_ns)).encode()


def side_lengths(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of a size. Raises ValueError.

    >>> side_lengths(32), side_lengths([24, 32])
    ((32, 32), (24, 32))
    """
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or not all(isinstance(side, int) and side > 0 for side in both):
        raise ValueError(f"size is {size!r}; it is a side in pixels, or [height, width]")
    return both[0], both[1]


def colours(channels: int) -> int:
    """Number of channels, 1 or 3. Raises ValueError.

    >>> colours(2)
    Traceback (most recent call last):
    ValueError: channels is 2; it is 1 for gray or 3 for colours
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; it is 1 for gray or 3 for colours")
    return channels


def _parts(path: Path) -> dict[str, Path]:
    """Folders of the parts; the whole folder if it has none for training."""
    if not path.is_dir():
        raise DataError(f"{path} is not a folder")
    named = {part: path / name for part, names in PARTS.items() for name in reversed(names) if (path / name).is_dir()}
    return named if "train" in named else {"train": path}


def _classes(path: Path) -> tuple[str, ...]:
    names = _folder_names(path)
    if len(names) < 2:
        held = f"has {'one' if names else 'none'}"
        raise DataError(f"{path} {held} where a folder for each class is expected, as in {path}/cats/1.png")
    return tuple(names)


def _folder_names(path: Path) -> list[str]:
    """Names of the visible folders in a folder, in order."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(path: Path, classes: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    """Images of each class in the order of their names, and their class numbers."""
    unknown = {*_folder_names(path)} - {*classes}
    if unknown:
        raise DataError(f"{path} has the class {min(unknown)}, which the training images do not have")
    files, targets = [], []
    for number, name in enumerate(classes):
        images = sorted(file for file in (path / name).rglob("*") if file.suffix.lower() in ENDINGS)
        if not images:
            raise DataError(f"{path / name} has no images: files that end in {', '.join(ENDINGS)}")
        files += images
        targets += [number] * len(images)
    return files, np.array(targets)
