"""The table of regularizers: one file and one line each."""

from collections.abc import Mapping

from wdsearch.regularizers._base import Recommendation, Regularizer
from wdsearch.regularizers.dropout import dropout
from wdsearch.regularizers.early_stopping import early_stopping
from wdsearch.regularizers.gradient_clip import gradient_clip
from wdsearch.regularizers.input_noise import input_noise
from wdsearch.regularizers.l1 import l1
from wdsearch.regularizers.l2 import l2
from wdsearch.regularizers.label_smoothing import label_smoothing
from wdsearch.regularizers.weight_decay import weight_decay

REGULARIZERS: dict[str, Regularizer] = {
    regularizer.key: regularizer
    for regularizer in (
        weight_decay,
        l2,
        l1,
        dropout,
        input_noise,
        label_smoothing,
        gradient_clip,
        early_stopping,
    )
}

__all__ = ["REGULARIZERS", "Recommendation", "Regularizer", "torch_equivalents"]


def torch_equivalents(strengths: Mapping[str, float], optimizer: str) -> dict[str, str]:
    """What to pass to torch for each strength that acts, and when torch's value is not equivalent."""
    acting = {key: value for key, value in strengths.items() if value != REGULARIZERS[key].neutral}
    setting = Recommendation(optimizer, clipped="gradient_clip" in acting)
    return {key: REGULARIZERS[key].torch(value, setting) for key, value in acting.items()}
