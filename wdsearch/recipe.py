"""How a trial is optimized apart from its strengths: optimizer, schedule, which parameters decay."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Recipe:
    """The optimizer and its schedule, in torch's words.

    `warmup` is the share of all steps in which the rate rises linearly; `decay` says which parameters decay:
    `weights` (never biases, norm scales or embeddings) or `all`.
    """

    optimizer: str = "adamw"
    schedule: str = "constant"
    warmup: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = False
    decay: str = "weights"

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


def decayed_parameters(network: nn.Module, rule: str = "weights") -> list[str]:
    """Names of the parameters that decay, in the network's order; the network must be unstacked.

    `weights`: by module type first (nothing of norms and embeddings), then matrices and kernels (ndim ≥ 2) that are
    no biases. He et al. 1812.01187 decay weights only; Kadra et al. 2021 decayed `all`.
    """
    if rule == "all":
        return [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return [name for name, parameter in _weights(network) if parameter.requires_grad]


def _weights(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    seen: set[nn.Parameter] = set()
    for path, module in network.named_modules():
        if isinstance(module, NORMS + EMBEDDINGS):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2 and "bias" not in name and parameter not in seen:
                seen.add(parameter)
                yield f"{path}.{name}" if path else name, parameter


def adam_step_size(
    exp_avg_sq: Float[Tensor, "*shape"], step: float, lr: float | Float[Tensor, "..."], beta2: float, eps: float
) -> Float[Tensor, "*shape"]:
    """η/(√v̂+ε): what Adam multiplies a constant gradient by, elementwise (ProxGEN, Yun et al. 2021, eq. 4)."""
    return lr / ((exp_avg_sq / (1.0 - beta2**step)).sqrt_().add_(eps))


def sgd_step_size(lr: float | Float[Tensor, "..."], momentum: float) -> float | Float[Tensor, "..."]:
    """η/(1−μ): what SGD, with Nesterov's momentum too, multiplies a constant gradient by in the long run."""
    return lr / (1.0 - momentum)


def torch_step_size(
    optimizer: torch.optim.Optimizer, group: dict, parameter: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"] | float:
    """The step size of one parameter after a step of torch's own AdamW or SGD."""
    if isinstance(optimizer, torch.optim.SGD):
        return sgd_step_size(group["lr"], group["momentum"])
    state = optimizer.state[parameter]
    return adam_step_size(state["exp_avg_sq"], float(state["step"]), group["lr"], group["betas"][1], group["eps"])
