"""A last batch of one row, which has no variance for batch norm."""

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from wdsearch.errors import BuildError
from wdsearch.models.layers import BatchNorm
from wdsearch.population.fusibility import step_alone
from wdsearch.trial.batches import Batch, first_rows
from wdsearch.trial.loaders import last_batch_rows
from wdsearch.trial.module import RegularizedModule

REMEDY = "give the loader drop_last=True, or a batch_size that leaves more than one row"


def lone_row_note(build: Callable[[], RegularizedModule], loader: DataLoader, draw: Callable[[], Batch]) -> str | None:
    """Note on a network with batch norm whose epochs end with a batch of one row; None without either.

    `build` makes the network's trial and `draw` a batch, of which nothing is needed if the last batch has more rows. Raises
    BuildError where torch refuses such a batch.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> loader = DataLoader(TensorDataset(torch.zeros(5, 3), torch.zeros(5)), batch_size=4)
    >>> lone_row_note(lambda: RegularizedModule(nn.Linear(3, 2)), loader, draw=lambda: next(iter(loader)))
    """
    if last_batch_rows(loader) != 1 or loader.batch_size == 1:
        return None
    module = build()
    name = next((name for name, layer in module.network.named_modules() if _is_batch_norm(layer)), None)
    if name is None:
        return None
    text = f"data: the last training batch of each epoch has one row, which has no variance for batch norm ({name})"
    try:
        step_alone(module, first_rows(draw(), 1))
    except Exception as error:  # others are told where the network is tried on a whole batch
        if "more than 1 value" not in str(error):
            return None
        raise BuildError(f"{text}: {error}; {REMEDY}") from error
    return f"{text}: its running variance is wrong by it; {REMEDY}"


def _is_batch_norm(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm | BatchNorm)
