"""Check that a Trainer's options let the last epoch end with a validation, whose values are those of the final weights."""

from collections.abc import Mapping
from typing import Any


def why_unvalidated(options: Mapping[str, Any], epochs: int, batches: int = 0) -> tuple[str, str] | None:
    """Option of a Trainer by which no validation follows the last training batch, and the reason with the remedy; else None.

    `batches` is the number of training batches of an epoch; 0 if it is unknown.

    >>> why_unvalidated({"check_val_every_n_epoch": 2}, epochs=4)
    >>> why_unvalidated({"check_val_every_n_epoch": 2}, epochs=1)[1]
    'is 2 and budget.epochs is 1: the last epoch would not be validated; set budget.epochs to 2, or validate every 1'
    >>> why_unvalidated({"val_check_interval": 4}, epochs=1, batches=10)[0]
    'val_check_interval'
    """
    if _is_number(limit := options.get("limit_val_batches")) and not limit:
        return "limit_val_batches", "is 0: nothing would be validated; leave it out"
    every = options.get("check_val_every_n_epoch", 1)
    if _is_whole(every) and every > 0 and epochs % every:
        return "check_val_every_n_epoch", _of_epochs(every, epochs)
    interval, batches = options.get("val_check_interval", 1.0), _limited(options, batches)
    if not batches or not _is_number(interval) or interval <= 0:
        return None
    step = interval if _is_whole(interval) else max(1, int(batches * interval))
    if every is None:
        left, span = batches * epochs % step, f"the training has {batches * epochs}"
    else:
        left, span = batches % step, f"an epoch has {batches}"
    if not left:
        return None
    text = f"is {interval}, which validates after every {step} batches, and {span}"
    return "val_check_interval", f"{text}: the last {left} would not be validated; choose a divisor, or leave it out"


def _of_epochs(every: int, epochs: int) -> str:
    lower, divisor = epochs // every * every, max(one for one in range(1, every) if epochs % one == 0)
    numbers = f"{lower} or {lower + every}" if lower else f"{every}"
    text = f"is {every} and budget.epochs is {epochs}: the last epoch would not be validated"
    return f"{text}; set budget.epochs to {numbers}, or validate every {divisor}"


def _limited(options: Mapping[str, Any], batches: int) -> int:
    """Training batches of an epoch that the options leave."""
    limit = options.get("overfit_batches") or options.get("limit_train_batches", 1.0)
    if not _is_number(limit):
        return batches
    return min(batches, limit) if _is_whole(limit) else int(batches * limit)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)
