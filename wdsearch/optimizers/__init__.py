"""The table of optimizers: one file and one line each."""

from wdsearch.optimizers._base import Optimizer, Option, Options, StackedOptimizer, decay_before_step
from wdsearch.optimizers.adam import adam
from wdsearch.optimizers.adamw import adamw
from wdsearch.optimizers.radam import radam
from wdsearch.optimizers.sgd import sgd

OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.key: optimizer
    for optimizer in (
        adamw,
        sgd,
        adam,
        radam,
    )
}
DEFAULT = adamw.key
"""Key of the default optimizer."""

__all__ = ["DEFAULT", "OPTIMIZERS", "Optimizer", "Option", "Options", "StackedOptimizer", "decay_before_step"]
