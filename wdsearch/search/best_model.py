"""Writes and reads the best trial's weights (best.pt), loads its network, and exports it (best.pt2), in the folder of a study."""

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from wdsearch.errors import BuildError, WdsearchError
from wdsearch.files import replacing
from wdsearch.search.replicate import configuration_of
from wdsearch.search.training_facts import training_facts
from wdsearch.storage.attributes import TOKEN
from wdsearch.storage.home import Home
from wdsearch.storage.recommendation import recommended_text
from wdsearch.storage.restore import restored
from wdsearch.storage.results import StudyResult, load_result, winner
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import StudyConfig
from wdsearch.trial.batches import Inputs
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


class NoWeightsError(WdsearchError):
    """A best trial whose weights are not on this machine, or do not fit its network."""

    exit_code = 1


def load_best(
    study: str,
    *,
    home: str | Path | None = None,
    storage: str | None = None,
    source: str | Path | Mapping[str, Any] | StudyConfig | None = None,
) -> torch.nn.Module:
    """The network of a study's best trial as its author wrote it, with the trial's weights, in eval mode, on the CPU.

    Of a LightningModule the module itself. Its layers of torch's dropout have the trial's rates, for further training. A study
    that was begun from Python with own objects needs them again, as `source`: what `run` was given.

    Raises StudyNotFoundError while no trial is complete, NoWeightsError while its weights are not here, NotStoredError where
    objects are missing, and BuildError for data or a network that cannot be built.
    """
    result = load_result(study, Home(home), storage)
    best = winner(result)
    stored = read_weights(result.weights)
    if not has_best_weights(result):
        raise NoWeightsError(_no_weights(result, stored))
    factory = _factory(result, source, f"wdsearch.load_best({study!r}, source=...)")
    network = factory.network(configuration_of(best.result))
    weights = stored["state_dict"]
    if not factory.solo and not isinstance(network, RegularizedModule):
        weights = {
            name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")
        }
    try:
        network.load_state_dict({name: value for name, value in weights.items() if name in network.state_dict()})
    except RuntimeError as error:
        text = f"the weights in {result.weights} do not fit the network as it is now: {error}"
        raise NoWeightsError(f"{text}; its code, or the data that give its sizes, have changed since") from error
    return network.eval()


def _no_weights(result: StudyResult, stored: Mapping[str, Any]) -> str:
    """Message on weights that are not there, with the remedy."""
    number = winner(result).number
    there = f"holds those of trial {stored['trial']}" if stored else "is missing"
    text = f"the weights of trial {number}, the best of study {result.study!r}, are not here: {result.weights} {there}"
    return f"{text}; copy best.pt from the machine that trained it, or let the study end here: wdsearch work {result.study}"


def rebuilt_text(result: StudyResult) -> str:
    """Python text of the best trial's training, for which data and network are built anew.

    It serves a study of an earlier version, which did not store it. Raises NotStoredError where objects are missing.
    """
    factory = _factory(
        result, None, f"wdsearch run once more under another name, which stores the text of {result.study!r}"
    )
    text = recommended_text(result, training_facts(factory, configuration_of(winner(result).result)))
    if not text:
        raise BuildError(
            f"study {result.study!r}: its network does not show what its training takes; see best --format yaml"
        )
    return text


def _factory(result: StudyResult, source: Any, call: str) -> TrialFactory:
    """Factory of a study's trials, from `source` or from what is stored; `call` takes what the storage cannot hold."""
    config = restored(result, source, call)
    return TrialFactory(config, build_data(config))


EXAMPLE_ROWS = 2
"""torch.export takes a size of 1 for a constant."""


class ExportError(WdsearchError):
    """A network that cannot be exported."""

    exit_code = 1


class Export(NamedTuple):
    """File of an exported network, and what it is called with, in words; `` if that is a single tensor."""

    path: Path
    arguments: str


def export_best(factory: TrialFactory, result: StudyResult) -> Export:
    """Write the best trial's network with its weights, in eval mode, for batches of any size.

    Its example inputs have the shapes of the data and are zeros, so that no data leave with a model.
    Raises ExportError for a network that cannot be exported.
    """
    network, args, kwargs = _network(factory, result)
    tensors: list[Tensor] = []
    apply_to_collection((args, kwargs), Tensor, tensors.append)
    sizes = torch.export.ShapesCollection()
    for one in tensors:
        if one.ndim:
            sizes[one] = {0: torch.export.Dim.AUTO}
    path = result.folder / "best.pt2"
    try:
        shapes = sizes.dynamic_shapes(network, args, kwargs)
        with torch.no_grad(), _quiet():
            torch.export.save(torch.export.export(network, args, kwargs, dynamic_shapes=shapes), path)
    except Exception as error:  # whatever torch makes of a user's network
        text = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch.export cannot trace it ({type(error).__name__}: {text})") from error
    one_tensor = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
    by_position = [f"{len(args)} arguments" if len(args) > 1 else f"a {type(args[0]).__name__}"] if args else []
    return Export(path, "" if one_tensor else " and ".join([*by_position, *map(str, kwargs)]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch.export prints of a network that it cannot trace: its error is told."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _zeros(rows: int, tensor: Tensor) -> Tensor:
    """Zeros of a tensor's shape, for a few rows if it has so many."""
    return torch.zeros_like(tensor[:EXAMPLE_ROWS] if tensor.ndim and len(tensor) == rows else tensor)


def requirements() -> list[str]:
    """Pinned packages that a model needs to be opened."""
    return [f"torch=={version('torch').partition('+')[0]}"]


def _network(factory: TrialFactory, result: StudyResult) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The best trial's network with its weights, and arguments of zeros to call it with."""
    if factory.solo:
        raise ExportError("a LightningModule is called as its author likes")
    if result.best is None or not has_best_weights(result):
        raise ExportError("there are no weights of the best trial")
    module = factory.module(configuration_of(result.best.result))
    module.load_state_dict(read_weights(result.weights)["state_dict"])
    if type(module).forward is not RegularizedModule.forward:
        raise ExportError(f"{type(module).__name__} has a forward of its own")
    inputs, targets = module.split(next(iter(factory.data.val_dataloader())))
    network, rows = module.network.eval(), len(targets)
    args, kwargs = _example(inputs, rows)
    try:
        with torch.no_grad():
            network(*args, **kwargs)
    except Exception:  # its rows belong together, as those of a graph
        args, kwargs = _example(inputs, -1)
    return network, args, kwargs


def _example(inputs: Inputs, rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return apply_to_collection((inputs.args, dict(inputs.kwargs)), Tensor, partial(_zeros, rows))
