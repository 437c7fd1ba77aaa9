"""State that modules keep outside their state dict: plain attributes, attributes of any other kind, volatile buffers."""

import copy
import io
import pickle
import types
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from wdsearch.noise import NoiseStream
from wdsearch.trial.generators import rewind_held
from wdsearch.trial.module import RegularizedModule

_OF_TORCH = {*vars(nn.Module()), "training"}


def attributes(module: nn.Module) -> dict[str, Any]:
    """Attributes that users' classes add to the layers of a module, by path; parameters, buffers and layers are none.

    >>> list(attributes(nn.Sequential(nn.Dropout(0.5))))
    ['0.p', '0.inplace']
    """
    own = _OF_TORCH | _of_trial() if isinstance(module, RegularizedModule) else _OF_TORCH
    return {
        f"{path}.{name}": value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in (own if part is module else _OF_TORCH)
        and not (part is module and name.startswith("_"))
        and not isinstance(value, NoiseStream)
    }


@cache
def _of_trial() -> frozenset[str]:
    """Attributes of a trial that training itself sets."""
    return frozenset({*vars(RegularizedModule(nn.Linear(1, 1))), "_validation_sums"})


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Numbers, strings, tensors and collections of them, copied: the attributes that a checkpoint can hold.

    >>> plain_attributes(nn.Sequential(nn.Dropout(0.5)))
    {'0.p': 0.5, '0.inplace': False}
    """
    return {path: _copy_of(value) for path, value in attributes(module).items() if _is_plain(value)}


def _copy_of(value: Any) -> Any:
    """Copy of an attribute; of a computed tensor, as the old `weight_norm` and `prune` leave, its values."""
    is_computed = isinstance(value, Tensor) and value.grad_fn is not None
    return value.detach().clone() if is_computed else copy.deepcopy(value)


def restore_attributes(module: nn.Module, saved: Mapping[str, Any]) -> None:
    """Set plain attributes to saved values.

    >>> network = nn.Sequential(nn.Dropout(0.5))
    >>> restore_attributes(network, {"0.p": 0.25})
    >>> network[0].p
    0.25
    """
    for full_name, value in saved.items():
        path, _, name = full_name.rpartition(".")
        setattr(module.get_submodule(path), name, copy.copy(value))


def volatile_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that are not in the state dict.

    >>> layer = nn.Linear(3, 2)
    >>> layer.register_buffer("calls", torch.tensor(2), persistent=False)
    >>> volatile_buffers(layer)
    {'calls': tensor(2)}
    """
    persistent = module.state_dict().keys()
    return {name: value for name, value in module.named_buffers(remove_duplicate=False) if name not in persistent}


def fingerprints(module: nn.Module) -> dict[str, bytes]:
    """Digest of each attribute of any kind; equal while its content is.

    The generators that a module holds are rewound first: training rewinds them for every batch, so that they keep nothing.

    >>> layer = nn.Identity()
    >>> layer.seen = {1, 2}
    >>> before = fingerprints(layer)
    >>> layer.seen.add(3)
    >>> changed_attribute(before, fingerprints(layer))
    '.seen'
    """
    rewind_held(module, 0)
    return {path: fingerprint(value) for path, value in attributes(module).items()}


def changed_attribute(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> str | None:
    """Path of the first attribute whose fingerprint changed; None if there is none.

    >>> changed_attribute({"0.calls": b"1", "0.p": b"5"}, {"0.calls": b"2", "0.p": b"5"})
    '0.calls'
    """
    return next((path for path, digest in after.items() if digest != before.get(path)), None)


def fingerprint(value: Any) -> bytes:
    """Digest of any value by its content; of what has no content that can be seen, by identity.

    >>> fingerprint([torch.ones(2), "a"]) == fingerprint([torch.ones(2), "a"]) != fingerprint([torch.ones(2), "b"])
    True
    """
    stream = io.BytesIO()
    try:
        _Digester(stream, protocol=4).dump(value)
    except Exception:  # whatever an object raises that cannot be pickled
        return repr((type(value), id(value))).encode()
    return blake2b(stream.getvalue(), digest_size=16).digest()


class _Digester(pickle.Pickler):
    """Pickles what cannot be pickled, too, for what comes out is never read."""

    def reducer_override(self, obj: Any) -> Any:
        content = None if obj is tuple else _content(obj)
        return NotImplemented if content is None else (tuple, (content,))


def _content(obj: Any) -> tuple[Any, ...] | None:
    """Content of an object by which its state is known; None if pickle knows better."""
    if isinstance(obj, Tensor):
        values = obj.detach().cpu().contiguous() if obj.layout is torch.strided else obj.detach().cpu().to_dense()
        return (
            str(obj.dtype),
            tuple(obj.shape),
            values.view(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b"",
        )
    if isinstance(obj, torch.Generator):
        return (bytes(obj.get_state().tolist()),)
    if isinstance(obj, nn.Module):  # its own attributes stand under its own path
        return (id(obj),)
    if isinstance(obj, types.FunctionType):
        cells = [cell.cell_contents for cell in obj.__closure__ or () if not _empty(cell)]
        return (id(obj.__code__), cells, obj.__defaults__)
    if isinstance(obj, types.GeneratorType):
        frame = obj.gi_frame
        return (id(obj), frame and frame.f_lasti, frame and list(frame.f_locals.values()))
    if isinstance(obj, type | types.ModuleType | types.BuiltinFunctionType):
        return (id(obj),)
    return None


def _empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _is_plain(value: Any) -> bool:
    if isinstance(value, nn.Parameter):
        return False
    if isinstance(value, list | tuple | set):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor)
