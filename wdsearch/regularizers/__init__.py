"""The table of regularizers: one file and one line each."""

from collections.abc import Mapping

from wdsearch.groups import split_key
from wdsearch.plugins import Table
from wdsearch.regularizers._base import Recommendation, Regularizer
from wdsearch.regularizers.dropout import dropout
from wdsearch.regularizers.early_stopping import early_stopping
from wdsearch.regularizers.ema import ema
from wdsearch.regularizers.gradient_clip import gradient_clip
from wdsearch.regularizers.input_noise import input_noise
from wdsearch.regularizers.l1 import l1
from wdsearch.regularizers.l2 import l2
from wdsearch.regularizers.label_smoothing import label_smoothing
from wdsearch.regularizers.weight_decay import weight_decay
from wdsearch.tasks.task import Task
from wdsearch.types import TorchWords

_OURS = (
    weight_decay,
    l2,
    l1,
    dropout,
    input_noise,
    label_smoothing,
    gradient_clip,
    ema,
    early_stopping,
)


def _misfit(name: str, entry: object) -> str:
    if not isinstance(entry, Regularizer):
        return f"{entry!r} is no wdsearch.regularizers.Regularizer"
    return "" if entry.key == name else f"its key is {entry.key!r}"


REGULARIZERS = Table("regularizers", {regularizer.key: regularizer for regularizer in _OURS}, _misfit)
"""Regularizers by key, with those of plugins: `REGULARIZERS["l1"].usual` is the range worth searching."""

__all__ = ["REGULARIZERS", "Recommendation", "Regularizer", "checked", "neutral", "regularizer_of", "torch_equivalents"]


def regularizer_of(key: str) -> Regularizer | None:
    """Regularizer of a key, with a group (`weight_decay:head`) or without (`weight_decay`); None if there is none.

    >>> regularizer_of("weight_decay:head").key, regularizer_of("momentum")
    ('weight_decay', None)
    """
    return REGULARIZERS.get(split_key(key)[0])


def neutral(key: str) -> float:
    """Strength at which a key's regularizer has no effect.

    >>> neutral("weight_decay:head"), neutral("gradient_clip")
    (0.0, inf)
    """
    return REGULARIZERS[split_key(key)[0]].neutral


def checked(key: str, value: float, task: Task) -> Regularizer:
    """Regularizer of a key; raises ValueError if there is none, or it does not accept the strength, the group or the task.

    >>> checked("dropout", 0.5, Task()).key
    'dropout'
    >>> checked("dropout", 1.5, Task())
    Traceback (most recent call last):
    ValueError: dropout is 1.5; allowed is [0, 1)
    """
    regularizer = regularizer_of(key)
    if regularizer is None:
        raise ValueError(f"there is no regularizer {key!r}; known: {', '.join(REGULARIZERS)}")
    if split_key(key)[1] and regularizer.acts_on is None:
        raise ValueError(f"{key!r}: {regularizer.key} acts on the whole trial; it has no groups")
    if value not in regularizer.domain:
        raise ValueError(f"{key} is {value!r}; allowed is {regularizer.domain}")
    if task.name not in regularizer.tasks:
        raise ValueError(f"{key} works for {' and '.join(regularizer.tasks)}, not for {task.name}")
    return regularizer


def torch_equivalents(strengths: Mapping[str, float], optimizer: TorchWords) -> dict[str, str]:
    """Equivalent in torch of each strength that acts, with a note where torch's value is not equivalent.

    >>> from wdsearch.optimizers import DEFAULT, OPTIMIZERS
    >>> torch_equivalents({"weight_decay": 0.1, "dropout": 0.0}, OPTIMIZERS[DEFAULT].words)
    {'weight_decay': 'torch.optim.AdamW(weight_decay=0.1) on the decayed parameters, 0 on the others'}
    """
    acting = {key: value for key, value in strengths.items() if value != neutral(key)}
    decays = any(REGULARIZERS[split_key(key)[0]].decay for key in acting)
    equivalents = {}
    for key, value in acting.items():
        regularizer, group = split_key(key)
        setting = Recommendation(optimizer, "gradient_clip" in acting, group, decays)
        equivalents[key] = REGULARIZERS[regularizer].torch(value, setting)
    return equivalents
