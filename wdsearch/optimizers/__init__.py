"""The table of optimizers: one file and one line each."""

from wdsearch.optimizers._base import Optimizer, Option, Options, StackedOptimizer, decay_before_step
from wdsearch.optimizers.adam import adam
from wdsearch.optimizers.adamw import adamw
from wdsearch.optimizers.radam import radam
from wdsearch.optimizers.sgd import sgd
from wdsearch.plugins import Table

_OURS = (adamw, sgd, adam, radam)


def _misfit(name: str, entry: object) -> str:
    if not isinstance(entry, Optimizer):
        return f"{entry!r} is no wdsearch.optimizers.Optimizer"
    return "" if entry.key == name else f"its key is {entry.key!r}"


OPTIMIZERS = Table("optimizers", {optimizer.key: optimizer for optimizer in _OURS}, _misfit)
DEFAULT = adamw.key
"""Key of the default optimizer."""

__all__ = ["DEFAULT", "OPTIMIZERS", "Optimizer", "Option", "Options", "StackedOptimizer", "decay_before_step"]
