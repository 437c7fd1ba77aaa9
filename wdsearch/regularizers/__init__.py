"""The table of regularizers: one file and one line each."""

from collections.abc import Mapping

from wdsearch.groups import split_key
from wdsearch.plugins import Table
from wdsearch.regularizers._base import Recommendation, Regularizer
from wdsearch.regularizers.dropout import dropout
from wdsearch.regularizers.early_stopping import early_stopping
from wdsearch.regularizers.gradient_clip import gradient_clip
from wdsearch.regularizers.input_noise import input_noise
from wdsearch.regularizers.l1 import l1
from wdsearch.regularizers.l2 import l2
from wdsearch.regularizers.label_smoothing import label_smoothing
from wdsearch.regularizers.weight_decay import weight_decay
from wdsearch.types import TorchWords

_OURS = (
    weight_decay,
    l2,
    l1,
    dropout,
    input_noise,
    label_smoothing,
    gradient_clip,
    early_stopping,
)


def _misfit(name: str, entry: object) -> str:
    if not isinstance(entry, Regularizer):
        return f"{entry!r} is no wdsearch.regularizers.Regularizer"
    return "" if entry.key == name else f"its key is {entry.key!r}"


REGULARIZERS = Table("regularizers", {regularizer.key: regularizer for regularizer in _OURS}, _misfit)

__all__ = ["REGULARIZERS", "Recommendation", "Regularizer", "neutral", "regularizer_of", "torch_equivalents"]


def regularizer_of(key: str) -> Regularizer | None:
    """The regularizer whose strength a key names, be it on all (`weight_decay`) or on one group (`weight_decay:head`)."""
    return REGULARIZERS.get(split_key(key)[0])


def neutral(key: str) -> float:
    """The strength at which a key's regularizer is absent."""
    return REGULARIZERS[split_key(key)[0]].neutral


def torch_equivalents(strengths: Mapping[str, float], optimizer: TorchWords) -> dict[str, str]:
    """What to pass to torch for each strength that acts, and when torch's value is not equivalent."""
    acting = {key: value for key, value in strengths.items() if value != neutral(key)}
    found = {}
    for key, value in acting.items():
        regularizer, group = split_key(key)
        setting = Recommendation(optimizer, clipped="gradient_clip" in acting, group=group)
        found[key] = REGULARIZERS[regularizer].torch(value, setting)
    return found
