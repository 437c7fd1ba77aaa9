"""How a trial is optimized apart from its strengths: optimizer, schedule, which parameters decay."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils.parametrizations import _WeightNorm

from wdsearch.groups import Patterns
from wdsearch.messages import nearest
from wdsearch.optimizers import DEFAULT, OPTIMIZERS

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, init=False)
class Recipe:
    """The optimizer and its schedule, in torch's words: `Recipe("sgd", momentum=0.95, schedule="cosine")`.

    The optimizer's `options` are given by their names, and read as `recipe.momentum`; those of other optimizers are left out,
    so that one call may serve several. `warmup` is the share of all steps in which the rate rises linearly; `decay` says which
    parameters decay: `weights` (never biases, norm scales or embeddings) or `all`, with those whose name one of `include` is
    found in, without those of `exclude`. `groups` divides what a regularizer acts on: {"weight_decay": {"head": r"head\\."}}
    makes `weight_decay:head` the key of a strength.

    Raises ValueError for an optimizer that is not in the table, or a value that an option does not allow.
    """

    optimizer: str
    schedule: str
    warmup: float
    decay: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    groups: Mapping[str, Patterns]
    options: Mapping[str, Any]

    def __init__(
        self,
        optimizer: str = DEFAULT,
        schedule: str = "constant",
        warmup: float = 0.0,
        *,
        decay: str = "weights",
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        groups: Mapping[str, Patterns] | None = None,
        **options: Any,
    ) -> None:
        self.__dict__.update(optimizer=optimizer, schedule=schedule, warmup=warmup)
        self.__dict__.update(decay=decay, include=include, exclude=exclude, groups=groups or {})
        self.__dict__.update(options=_options(optimizer, options))

    def __getattr__(self, name: str) -> Any:
        """An option of the optimizer."""
        options = self.__dict__.get("options", {})
        if name not in options:
            raise AttributeError(f"a recipe has no {name!r}")
        return options[name]

    def factor(self, step: int, steps: int) -> float:
        """What multiplies the learning rate at `step` of `steps`: linear warm-up, then constant or cosine to 0.

        Cosine without restarts as in Loshchilov & Hutter, 1608.03983, eq. 5 with η_min = 0.
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

    def factors(self, steps: int) -> list[float]:
        """The factor of every step; their sum turns a timescale into a decay."""
        return [self.factor(step, steps) for step in range(steps)]


def _options(optimizer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an optimizer; raises ValueError for an optimizer or a value, TypeError for an option that is not known."""
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer {optimizer!r}{nearest(optimizer, OPTIMIZERS)}")
    known = {name for record in OPTIMIZERS.values() for name in record.options}
    for name in options.keys() - known:
        raise TypeError(f"a recipe takes no {name!r}{nearest(name, known)}")
    record = OPTIMIZERS[optimizer]
    return record.complete({name: value for name, value in options.items() if name in record.options})


def reasons(network: nn.Module, recipe: Recipe) -> dict[str, str | None]:
    """Why each parameter does not decay, by name in the network's order; None if it does. The network must be unstacked.

    By the rule `weights` nothing of norms and embeddings decays, by module type first; then only matrices and kernels
    (ndim ≥ 2) that are no biases. He et al. 1812.01187 decay weights only; Kadra et al. 2021 decayed `all`. A weight in
    several places goes by its first name, and decays if it is a weight in one of them.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    found: dict[str, str | None] = {}
    for module in network.modules():
        for own, parameter in module.named_parameters(recurse=False):
            name = names[parameter]
            if found.get(name, "") is not None:
                found[name] = _reason(name, own, module, parameter, recipe)
    return {name: found[name] for name in names.values()}


def _reason(name: str, own: str, module: nn.Module, parameter: nn.Parameter, recipe: Recipe) -> str | None:
    if not parameter.requires_grad:
        return "frozen"
    if excluding := next((pattern for pattern in recipe.exclude if re.search(pattern, name)), None):
        return f"excluded by {excluding}"
    if recipe.decay == "all" or any(re.search(pattern, name) for pattern in recipe.include):
        return None
    if isinstance(module, NORMS):
        return "of a norm layer"
    if isinstance(module, EMBEDDINGS):
        return "embedding"
    if _is_magnitude(own, module):
        return "magnitude of weight norm"
    if "bias" in own:
        return "bias"
    return "vector" if parameter.ndim < 2 else None


def _is_magnitude(own: str, module: nn.Module) -> bool:
    """Whether it is the scale that weight norm takes out of a weight (Salimans & Kingma 1602.07868): as of any norm layer."""
    return own == "original0" and any(isinstance(part, _WeightNorm) for part in module.children())


def decayed_parameters(network: nn.Module, recipe: Recipe) -> list[str]:
    """Names of the parameters that decay, in the network's order; the network must be unstacked."""
    return [name for name, reason in reasons(network, recipe).items() if reason is None]
