"""Dropout: the rate of every layer that drops activations."""

from wdsearch.regularizers._base import Regularizer
from wdsearch.types import Interval, Range

dropout = Regularizer(
    key="dropout",
    summary="rate of every dropout layer (Srivastava et al. 2014)",
    unit="share of activations dropped",
    neutral=0.0,
    domain=Interval(0.0, 1.0, high_open=True),
    usual=Range(0.0, 0.6),
    torch=lambda strength, _: f"torch.nn.Dropout(p={strength:.6g})",
    buffer="rate",
)
