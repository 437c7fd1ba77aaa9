"""Writes and reads the best trial's weights (best.pt), and exports its network (best.pt2), in the folder of a study."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wdsearch.errors import WdsearchError
from wdsearch.files import replacing
from wdsearch.search.replicate import configuration_of
from wdsearch.storage.attributes import TOKEN
from wdsearch.storage.results import StudyResult
from wdsearch.study.factory import TrialFactory
from wdsearch.trial.module import RegularizedModule


def read_weights(path: Path) -> dict[str, Any]:
    """Content that `write_weights` wrote (`study`, `trial`, `values`, `state_dict`); empty if the file is missing or cut off."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except Exception:  # whatever torch raises
        return {}


def write_weights(path: Path, study: str, trial: int, values: Sequence[float], state: Mapping[str, Tensor]) -> None:
    """Write a trial's weights, all or nothing; `study` is the token by which studies of one name differ."""
    with replacing(path) as new:
        torch.save({"study": study, "trial": trial, "values": list(values), "state_dict": dict(state)}, new)


def has_best_weights(result: StudyResult) -> bool:
    """True if the file has the best trial's weights; another machine may have trained it."""
    stored = read_weights(result.weights)
    is_best = result.best is not None and stored.get("trial") == result.best.number
    return is_best and stored["study"] == result.optuna_study.user_attrs[TOKEN]


EXAMPLE_ROWS = 2
"""torch.export takes a size of 1 for a constant."""


class ExportError(WdsearchError):
    """A network that cannot be exported."""

    exit_code = 1


def export_best(factory: TrialFactory, result: StudyResult) -> Path:
    """Write the best trial's network with its weights, in eval mode, for batches of any size; the file.

    Its example inputs have the shapes of the data and are zeros, so that no data leave with a model.
    Raises ExportError for a network that is not called with one tensor, and what torch.export raises for what it cannot trace.
    """
    network, inputs = _network(factory, result)
    path = result.folder / "best.pt2"
    with torch.no_grad():
        sizes = ({0: torch.export.Dim.AUTO},)
        torch.export.save(torch.export.export(network, inputs, dynamic_shapes=sizes), path)
    return path


def requirements() -> list[str]:
    """Pinned packages that a model needs to be opened."""
    return [f"torch=={version('torch').partition('+')[0]}"]


def _network(factory: TrialFactory, result: StudyResult) -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """The best trial's network with its weights, and inputs to call it with."""
    if factory.solo:
        raise ExportError("a LightningModule is called as its author likes")
    if result.best is None or not has_best_weights(result):
        raise ExportError("there are no weights of the best trial")
    module = factory.module(configuration_of(result.best.result))
    module.load_state_dict(read_weights(result.weights)["state_dict"])
    if type(module).forward is not RegularizedModule.forward:
        raise ExportError(f"{type(module).__name__} has a forward of its own")
    inputs, _ = module.split(next(iter(factory.data.val_dataloader())))
    if len(inputs.args) != 1 or inputs.kwargs or not isinstance(inputs.args[0], torch.Tensor):
        raise ExportError("it is not called with a single tensor")
    return module.network.eval(), (torch.zeros_like(inputs.args[0][:EXAMPLE_ROWS]),)
