"""Memory of a population: estimate before the start, limit on fused trials, and measured peak."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from wdsearch.optimizers import OPTIMIZERS
from wdsearch.trial.batches import Batch
from wdsearch.trial.module import RegularizedModule
from wdsearch.types import States

RESERVE = 0.1
"""Share of the free memory that is left unused."""
WORKSPACE = 80 * 2**20
"""Bytes that torch and Lightning allocate when a training starts; measured with networks of a few kilobytes."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a trial in training (weights, gradients, moments, best copy), and of one trial in a call (activations).

    >>> network = Footprint(per_trial=10 * 2**20, per_fused=50 * 2**20)
    >>> network.max_fused(trials=8, limit=8, available=2**29)
    6
    """

    per_trial: int
    per_fused: int

    def total(self, trials: int, max_fused: int) -> int:
        """Bytes of `trials` trials in training, of which at most `max_fused` share a call."""
        return WORKSPACE + trials * self.per_trial + min(trials, max_fused) * self.per_fused

    def max_fused(self, trials: int, limit: int, available: int) -> int:
        """Number of trials per call, at most `limit`, with which `trials` in training fit into `available` bytes; at least 1."""
        left = (1.0 - RESERVE) * available - WORKSPACE - trials * self.per_trial
        return max(1, min(limit, int(left / max(1, self.per_fused))))


class Memory:
    """Estimated and measured peak memory of a search, without the memory that was in use before, in bytes."""

    def __init__(self, estimated: int, device: torch.device) -> None:
        self.estimated, self.device = estimated, device
        self._before = 0 if device.type == "cuda" else int(psutil.Process().memory_info().rss)

    def as_dict(self) -> dict[str, int]:
        """Form for the study's record; the peak is too high if this process had used more memory before."""
        return {"estimated": self.estimated, "peak": max(0, peak(self.device) - self._before)}


def device_of(accelerator: str) -> torch.device:
    """Device whose memory a Trainer with this accelerator uses: a GPU or the CPU.

    >>> device_of("cpu")
    device(type='cpu')
    """
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def device_name(accelerator: str) -> str:
    """Name of the device on which a Trainer with this accelerator trains.

    >>> device_name("cpu")
    'cpu'
    """
    if (device := device_of(accelerator)).type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return "mps" if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"


def footprint(module: RegularizedModule, batch: Batch, stops_early: bool) -> Footprint:
    """Footprint of one trial, measured by one forward pass over a batch of training rows.

    In training a trial holds its weights, its module's weights until they are stacked, two sets of gradients (the next are
    computed while the last are still there), the optimizer's moments, the states of its regularizers, and its best weights
    under early stopping. In a call it holds the tensors that autograd saves for the backward pass, and the gradients of two
    neighbouring layers' outputs.

    >>> module = RegularizedModule(torch.nn.Linear(3, 2))
    >>> footprint(module, (torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])), stops_early=False).per_trial
    232
    """
    parameters = list(module.parameters())
    weights = sum(map(_bytes, parameters))
    moments = len(OPTIMIZERS[module.recipe.optimizer].stacked.moments(module.recipe.options))
    weight_pointers = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    activations: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in weight_pointers:
            activations[pointer] = _bytes(tensor)
        return tensor

    was_training = module.training
    module.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.random.fork_rng(devices=[]):
        module.rewind_noise(0, 0)
        module.objective(batch)
    module.train(was_training)
    copies = 4 + moments + int(stops_early)
    states = sum(_bytes(value) for state in _states(module).values() for value in state.values())
    buffers = sum(map(_bytes, module.buffers()))
    return Footprint(
        copies * weights + (1 + int(stops_early)) * buffers + states,
        sum(activations.values()) + 2 * max(activations.values(), default=0),
    )


def _states(module: RegularizedModule) -> States:
    """States of a trial's regularizers as meta tensors, which have a shape but no memory."""
    return module.following.init_states({name: value.to("meta") for name, value in module.trained().items()})


def available(device: torch.device) -> int:
    """Free bytes of a GPU or of this machine, within the limit of this process's control group (cgroup).

    >>> available(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        # memory that torch has reserved for later tensors is free as well
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    free = int(psutil.virtual_memory().available)
    for limit, usage in _CGROUPS:
        if limit.exists() and usage.exists() and (text := limit.read_text().strip()).isdigit():
            free = min(free, int(text) - int(usage.read_text()))
    return free


def peak(device: torch.device) -> int:
    """Peak memory so far in bytes: of torch on a GPU, else of this process.

    >>> peak(torch.device("cpu")) > 2**20
    True
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # exists on Unix only
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def is_out_of_memory(error: BaseException) -> bool:
    """True for an out-of-memory error of Python or of torch, which has an error type for it on GPUs only.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory")), is_out_of_memory(ValueError("shape"))
    (True, False)
    """
    texts = ("not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in texts)
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


_GROUP = Path("/sys/fs/cgroup")
_CGROUPS = (
    (_GROUP / "memory.max", _GROUP / "memory.current"),
    (_GROUP / "memory" / "memory.limit_in_bytes", _GROUP / "memory" / "memory.usage_in_bytes"),
)
