"""Early stopping: a trial leaves when its validation loss has not improved, with its best weights."""

import math

from wdsearch.regularizers._base import Regularizer
from wdsearch.types import Interval, Range

early_stopping = Regularizer(
    key="early_stopping",
    summary="patience; a trial's result is then the state with its lowest validation loss (Prechelt 1998)",
    unit="epochs without a better validation loss; ∞ is off",
    neutral=math.inf,
    domain=Interval(1.0, math.inf),
    usual=Range(3, 20),
    integer=True,
    torch=lambda strength, _: f"stop after {strength:.0f} epochs without a better validation loss, restore the best",
    patience=lambda strength: strength,
    code="{strength}",
)
