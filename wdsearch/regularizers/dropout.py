"""Dropout: the rate of every layer that drops activations."""

from wdsearch.regularizers._base import Recommendation, Regularizer
from wdsearch.types import Interval, Range


def _torch(strength: float, setting: Recommendation) -> str:
    layers = f" in the layers of group {setting.group}" if setting.group else ""
    return f"torch.nn.Dropout(p={strength:.6g}){layers}"


dropout = Regularizer(
    key="dropout",
    summary="rate of every dropout layer (Srivastava et al. 2014)",
    unit="share of activations dropped",
    neutral=0.0,
    domain=Interval(0.0, 1.0, high_open=True),
    usual=Range(0.0, 0.6),
    torch=_torch,
    buffer="rate",
    code="{strength}",
)
