"""A look at the data before anything is trained: what would make every trial worthless is said at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection

from wdsearch.errors import DataError
from wdsearch.trial.batches import BatchError, split_batch

MOST_COMPARED = 200_000
"""Rows of a part that are looked at; beyond that the look would cost more than it is worth."""
MOST_BYTES = 2**29
"""Bytes of them, so that sets larger than memory stay where they are."""


AUGMENTED = (
    "the training rows change each time they are drawn, so the gap is measured on augmented rows and too small; it is marked "
    "so. Give the data a train_eval_dataloader() without augmentation"
)


def examine(data: L.LightningDataModule, task: str) -> list[str]:
    """Warnings about the training and validation rows; raises DataError. Test rows are not looked at."""
    parts = {
        "training": _rows("training", data.train_dataloader()),
        "validation": _rows("validation", data.val_dataloader()),
    }
    outputs = getattr(data, "outputs", None)
    for part, found in parts.items():
        if found is None:  # batches of a user's own kind
            return []
        for inputs in found.inputs:
            _check_finite(part, "inputs", inputs)
        _check_finite(part, "targets", found.targets)
        if task == "classification":
            _check_classes(part, found.targets, outputs)
    train, validation = (_digests(found.inputs) for found in parts.values() if found is not None)
    doubled = np.isin(validation, train).sum()
    if not doubled:
        return []
    share = doubled / len(validation)
    text = f"{doubled} of {len(validation)} validation rows ({share:.0%}) are among the training rows as well: "
    return [text + "the gap looks smaller than it is; remove duplicates before splitting, or split by group"]


class _Rows(NamedTuple):
    """Each input, flattened to (rows, entries), and the targets."""

    inputs: list[torch.Tensor]
    targets: torch.Tensor


def _rows(part: str, loader: Any) -> _Rows | None:
    """As many rows of a part as are looked at; None if its batches are of a kind that nobody knows."""
    columns: list[list[torch.Tensor]] = []
    seen = size = 0
    for batch in loader:
        try:
            inputs, targets = split_batch(batch)
        except BatchError:
            return None
        found: list[torch.Tensor] = []
        apply_to_collection(tuple(inputs), torch.Tensor, found.append)
        if not found or any(x.ndim == 0 or len(x) != len(targets) for x in found):
            return None
        columns.append([x.flatten(1) if x.ndim > 1 else x.unsqueeze(1) for x in found] + [targets])
        seen, size = seen + len(targets), size + sum(x.numel() * x.element_size() for x in found)
        if seen >= MOST_COMPARED or size >= MOST_BYTES:
            break
    if not seen:
        raise DataError(f"the {part} part is empty: give it rows, or another split")
    try:
        *inputs_found, targets_found = [torch.cat(parts) for parts in zip(*columns, strict=True)]
    except (RuntimeError, ValueError):  # of another size in each batch, as padded sequences are
        return None
    return _Rows(inputs_found, targets_found)


def _bytes(inputs: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(inputs.cpu().numpy()).view(np.uint8).reshape(len(inputs), -1)


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


def _digests(inputs: Sequence[torch.Tensor]) -> np.ndarray:
    """A number per row, the same for equal rows: a random projection of its bytes, in 64-bit integers."""
    raw = np.concatenate([_bytes(x) for x in inputs], axis=1)
    padded = np.zeros((len(raw), -(-raw.shape[1] // 8) * 8), np.uint8)
    padded[:, : raw.shape[1]] = raw
    factors = np.random.default_rng(0).integers(1, 2**63, padded.shape[1] // 8, dtype=np.uint64) | np.uint64(1)
    words = padded.view(np.uint64)
    words ^= words >> np.uint64(29)  # products carry upwards only: two flipped signs alone would cancel
    return (words * factors).sum(1, dtype=np.uint64)
