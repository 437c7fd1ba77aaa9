"""The only source of randomness in training: every draw is a function of (seed, epoch, batch, regularizer)."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CPU = torch.device("cpu")


def derive_seed(*parts: object) -> int:
    """Derive a 63-bit seed from a study's seed and a purpose; equal parts give equal seeds on every machine.

    >>> derive_seed(0, "weights") == derive_seed(0, "weights") != derive_seed(0, "order")
    True
    """
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_generators(seed: int, device: torch.device = CPU) -> None:
    """Seed the global generators: Python's, NumPy's, and torch's of the CPU and of one device.

    `torch.manual_seed`, which seeds those of all devices, costs a hundred times as much.

    >>> seed_generators(3)
    >>> first = random.random(), np.random.rand(), torch.rand(1).item()
    >>> seed_generators(3)
    >>> (random.random(), np.random.rand(), torch.rand(1).item()) == first
    True
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).manual_seed(seed)


class NoiseStream:
    """Noise of one regularizer; the n-th draw of a training step is the same whatever other streams draw.

    Under `vmap(..., randomness="same")` one draw serves all trials: common random numbers.

    >>> stream, other = NoiseStream(0, "dropout"), NoiseStream(0, "dropout")
    >>> first = stream.uniform(torch.zeros(2, 3))
    >>> stream.at(epoch=0, batch=0)
    >>> torch.equal(stream.uniform(torch.zeros(2, 3)), first)
    True
    """

    def __init__(self, seed: int, key: str) -> None:
        self.seed, self.key = seed, key
        self._moment: tuple[object, ...] = (0, 0)
        self._generator: torch.Generator | None = None
        self._replays: dict[int, Tensor] = {}

    def at(self, epoch: int, batch: int, *phase: str) -> None:
        """Rewind to the first draw of this batch of this epoch, in training or in another phase."""
        self._moment, self._generator, self._replays = (epoch, batch, *phase), None, {}

    def uniform(self, like: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Uniform noise on [0, 1) with the shape of `like`; of 32 bits at least, for bfloat16 has 256 such numbers."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        with self._replayed(self._on(like)) as generator:
            return torch.rand(like.shape, generator=generator, dtype=dtype, device=like.device)

    def normal(self, like: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Standard normal noise with the shape of `like`."""
        with self._replayed(self._on(like)) as generator:
            return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    def _on(self, like: Tensor) -> torch.Generator:
        if self._generator is None or self._generator.device != like.device:
            self._generator = torch.Generator(like.device)
            self._generator.manual_seed(derive_seed(self.seed, *self._moment, self.key))
        return self._generator

    @contextmanager
    def _replayed(self, generator: torch.Generator) -> Iterator[torch.Generator]:
        """The generator where it was at the first pass, if `torch.utils.checkpoint` computes a segment once more.

        checkpoint rewinds torch's own generator to the segment's start: what is drawn from it there identifies a draw.
        """
        if not _in_checkpoint():
            yield generator
            return
        ticket, now = int(torch.randint(2**62, (), generator=torch.default_generator)), generator.get_state()
        first = self._replays.setdefault(ticket, now)
        generator.set_state(first)
        yield generator
        if first is not now:
            generator.set_state(now)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_generator": None, "_replays": {}}


def _in_checkpoint() -> bool:
    """True in either pass through a segment of `torch.utils.checkpoint`, and wherever else a pass may be one of two."""
    saves_nothing = torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    return saves_nothing or not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1
