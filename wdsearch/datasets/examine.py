"""Checks of the data before training: faults that would make every trial worthless are reported at once."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection

from wdsearch.errors import DataError
from wdsearch.trial.batches import BatchError, split_batch
from wdsearch.trial.loaders import epoch_length, has_length

MOST_COMPARED = 200_000
"""Most rows of a part that are checked; beyond that the check would cost more than it is worth."""
MOST_BYTES = 2**29
"""Most bytes that are checked, so that sets larger than memory are not read whole."""

AUGMENTED = (
    "the training rows change each time they are drawn, so the gap is measured on augmented rows and too small; it is marked "
    "so. Give the data a train_eval_dataloader() without augmentation"
)

COUNTED = "the training data have no length: the {:,} batches of one epoch were counted, by which the schedule goes"


def examine(data: L.LightningDataModule, task: str, goals: Sequence[str] = ()) -> list[str]:
    """Notes of the data and warnings about the training and validation rows; raises DataError. Test rows are not read.

    `goals` are the results by which trials are judged.

    >>> from wdsearch.datasets import Digits
    >>> data = Digits()
    >>> data.setup()
    >>> examine(data, "classification")
    []
    """
    parts = {
        "training": _rows("training", data.train_dataloader()),
        "validation": _rows("validation", data.val_dataloader()),
    }
    outputs = getattr(data, "outputs", None)
    for part, rows in parts.items():
        if rows is None:  # batches of a user-defined form
            return []
        for inputs in rows.inputs:
            _check_finite(part, "inputs", inputs)
        _check_finite(part, "targets", rows.targets)
        if task == "classification":
            _check_classes(part, rows.targets, outputs)
    undefined = _constant_targets(parts, data, goals) if task == "regression" else []
    train, validation = (_digests(rows.inputs) for rows in parts.values() if rows is not None)
    duplicates = np.isin(validation, train).sum()
    notes = [*getattr(data, "notes", ()), *undefined]
    notes += [] if has_length(data.train_dataloader()) else [COUNTED.format(epoch_length(data))]
    if not duplicates:
        return notes
    share = duplicates / len(validation)
    text = f"{duplicates} of {len(validation)} validation rows ({share:.0%}) are among the training rows as well: "
    return [*notes, text + "the gap looks smaller than it is; remove duplicates before splitting, or split by group"]


class _Rows(NamedTuple):
    """Each input, flattened to (rows, entries), and the targets."""

    inputs: list[torch.Tensor]
    targets: torch.Tensor


def _rows(part: str, loader: Any) -> _Rows | None:
    """Rows of a part that are checked; None if its batches are of an unknown form."""
    columns: list[list[torch.Tensor]] = []
    rows = size = 0
    for batch in loader:
        try:
            inputs, targets = split_batch(batch)
        except BatchError:
            return None
        tensors: list[torch.Tensor] = []
        apply_to_collection(tuple(inputs), torch.Tensor, tensors.append)
        if not tensors or any(x.ndim == 0 or len(x) != len(targets) for x in tensors):
            return None
        columns.append([x.flatten(1) if x.ndim > 1 else x.unsqueeze(1) for x in tensors] + [targets])
        rows += len(targets)
        size += sum(x.numel() * x.element_size() for x in tensors)
        if rows >= MOST_COMPARED or size >= MOST_BYTES:
            break
    if not rows:
        raise DataError(f"the {part} part is empty: give it rows, or another split")
    try:
        *all_inputs, all_targets = [torch.cat(parts) for parts in zip(*columns, strict=True)]
    except (RuntimeError, ValueError):  # of another size in each batch, as padded sequences are
        return None
    return _Rows(all_inputs, all_targets)


def _bytes(inputs: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(inputs.cpu().numpy()).view(np.uint8).reshape(len(inputs), -1)


def _check_finite(part: str, name: str, values: torch.Tensor) -> None:
    if not values.is_floating_point():
        return
    broken = ~values.reshape(len(values), -1).isfinite()
    if broken.any():
        rows, columns = broken.any(1), broken.any(0).nonzero().flatten().tolist()
        listed = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
        text = f"{int(rows.sum())} of {len(values)} {part} rows have NaN or infinite {name} (columns {listed})"
        raise DataError(f"{text}: fill them in, or leave the rows out, before they get here")


def _constant_targets(parts: Mapping[str, Any], data: Any, goals: Sequence[str]) -> list[str]:
    """Note on targets that do not vary; raises DataError if there is nothing to learn, or to judge by."""
    for part, rows in parts.items():
        targets = rows.targets.reshape(len(rows.targets), -1).double()
        constant = (targets == targets[0]).all(0)
        if not constant.any():
            continue
        scale, mean = (
            getattr(data, name, ()) or default for name, default in (("target_scale", 1.0), ("target_mean", 0.0))
        )
        value = float((targets[0] * torch.tensor(scale) + torch.tensor(mean))[constant][0])
        text = f"all {len(targets)} {part} targets are {value:.6g}"
        if part == "training":
            raise DataError(f"{text}: there is nothing to learn")
        if judged := [goal for goal in goals if "r2" in goal]:
            raise DataError(
                f"{text}: {judged[0]} is undefined, for R² divides by their variance; judge by val_loss or val_rmse"
            )
        return [f"{text}: R² is undefined, for it divides by their variance, and is left out"]
    return []


def _check_classes(part: str, targets: torch.Tensor, outputs: int | None) -> None:
    if targets.is_floating_point():
        if _are_shares(targets):
            return
        raise DataError(f"the {part} targets are {targets.dtype}, not class numbers; for regression: task: regression")
    classes = targets.unique().tolist()
    if len(classes) < 2:
        text = f"all {len(targets)} {part} rows are of class {classes[0]}"
        raise DataError(
            f"{text}: there is nothing to tell apart; split so that every part has all classes (stratified)"
        )
    if classes[0] < 0 or (outputs is not None and classes[-1] >= outputs):
        allowed = f"0 to {outputs - 1}" if outputs is not None else "0 and above"
        raise DataError(f"{part} targets go from {classes[0]} to {classes[-1]}; allowed are class numbers {allowed}")


def _are_shares(targets: torch.Tensor) -> bool:
    """True for 0 and 1 as floats, as binary cross-entropy takes them, and for shares of classes that add up to 1 in a row."""
    if targets.ndim > 1 and targets.shape[-1] > 1:
        return bool((targets >= 0).all() and ((targets.sum(-1) - 1.0).abs() < 1e-3).all())
    return sorted(targets.unique().tolist()) == [0.0, 1.0]


def _digests(inputs: Sequence[torch.Tensor]) -> np.ndarray:
    """Hash of each row, equal for equal rows: a random projection of its bytes, in 64-bit integers."""
    raw = np.concatenate([_bytes(x) for x in inputs], axis=1)
    padded = np.zeros((len(raw), -(-raw.shape[1] // 8) * 8), np.uint8)
    padded[:, : raw.shape[1]] = raw
    factors = np.random.default_rng(0).integers(1, 2**63, padded.shape[1] // 8, dtype=np.uint64) | np.uint64(1)
    words = padded.view(np.uint64)
    words ^= words >> np.uint64(29)  # products carry upwards only: two flipped signs alone would cancel
    return (words * factors).sum(1, dtype=np.uint64)
