"""A look at the data before anything is trained: what would make every trial worthless is said at once."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch

MOST_COMPARED = 200_000
"""Rows of a part that are looked at; beyond that the look would cost more than it is worth."""


class DataError(Exception):
    """Data from which nothing can be learned: not finite, empty, of one class, or with labels that are none."""


def examine(data: L.LightningDataModule, task: str) -> list[str]:
    """Warnings about the training and validation rows; raises DataError. Test rows are not looked at."""
    train, validation = _rows("training", data.train_dataloader()), _rows("validation", data.val_dataloader())
    outputs = getattr(data, "outputs", None)
    for part, (inputs, targets) in {"training": train, "validation": validation}.items():
        _check_finite(part, "inputs", inputs)
        _check_finite(part, "targets", targets)
        if task == "classification":
            _check_classes(part, targets, outputs)
    doubled = np.isin(_digests(validation[0]), _digests(train[0])).sum()
    if not doubled:
        return []
    share = doubled / len(validation[0])
    text = f"{doubled} of {len(validation[0])} validation rows ({share:.0%}) are among the training rows as well: "
    return [text + "the gap looks smaller than it is; remove duplicates before splitting, or split by group"]


def _rows(part: str, loader: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = [], []
    for batch in _up_to(loader, MOST_COMPARED):
        inputs.append(batch[0])
        targets.append(batch[1])
    if not inputs or not sum(len(batch) for batch in inputs):
        raise DataError(f"the {part} part is empty: give it rows, or another split")
    return torch.cat(inputs).flatten(1), torch.cat(targets)


def _up_to(loader: Any, rows: int) -> Iterator[Any]:
    seen = 0
    for batch in loader:
        if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(map(torch.is_tensor, batch))):
            return
        yield batch
        seen += len(batch[0])
        if seen >= rows:
            return


def _check_finite(part: str, name: str, values: torch.Tensor) -> None:
    if not values.is_floating_point():
        return
    broken = ~values.reshape(len(values), -1).isfinite()
    if broken.any():
        rows, columns = broken.any(1), broken.any(0).nonzero().flatten().tolist()
        shown = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
        text = f"{int(rows.sum())} of {len(values)} {part} rows have NaN or infinite {name} (columns {shown})"
        raise DataError(f"{text}: fill them in, or leave the rows out, before they get here")


def _check_classes(part: str, targets: torch.Tensor, outputs: int | None) -> None:
    if targets.is_floating_point():
        raise DataError(f"the {part} targets are {targets.dtype}, not class numbers; for regression: task: regression")
    classes = targets.unique().tolist()
    if len(classes) < 2:
        text = f"all {len(targets)} {part} rows are of class {classes[0]}"
        raise DataError(
            f"{text}: there is nothing to tell apart; split so that every part has all classes (stratified)"
        )
    if classes[0] < 0 or (outputs is not None and classes[-1] >= outputs):
        known = f"0 to {outputs - 1}" if outputs is not None else "0 and above"
        raise DataError(f"{part} targets go from {classes[0]} to {classes[-1]}; allowed are class numbers {known}")


def _digests(inputs: torch.Tensor) -> np.ndarray:
    """A number per row, the same for equal rows: a random projection of its bytes, in 64-bit integers."""
    raw = np.ascontiguousarray(inputs.cpu().numpy()).view(np.uint8).reshape(len(inputs), -1)
    padded = np.zeros((len(raw), -(-raw.shape[1] // 8) * 8), np.uint8)
    padded[:, : raw.shape[1]] = raw
    factors = np.random.default_rng(0).integers(1, 2**63, padded.shape[1] // 8, dtype=np.uint64) | np.uint64(1)
    words = padded.view(np.uint64)
    words ^= words >> np.uint64(29)  # products carry upwards only: two flipped signs alone would cancel
    return (words * factors).sum(1, dtype=np.uint64)
