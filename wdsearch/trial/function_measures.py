"""Measures of the function that a network computes: activations, outputs, and the weights whose scale it ignores."""

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from wdsearch.tasks.task import logits_of
from wdsearch.trial.batches import Batch, Inputs, first_rows
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.weight_measures import Measures, mean_correlation
from wdsearch.types import Params

MOST_ROWS = 4096
"""Most rows (or positions in rows) over which units' activations are correlated."""
PROBED_ROWS = 64
"""Most rows that a scale is probed with."""
DEAD = 1e-3
"""Spread of the outputs over the rows, as a share of their size, below which a network is dead."""


@dataclass(frozen=True)
class FunctionMeasures:
    """Measures by name of a layer's decayed weight, and of the whole network; `scale` is that of the outputs, NaN if unknown."""

    layers: dict[str, Measures]
    whole: Measures
    scale: float = math.nan


@torch.no_grad()
def function_measures(module: RegularizedModule, batch: Batch) -> FunctionMeasures:
    """Measures over a batch, in eval mode, by one pass through the network.

    - `activation_correlation` of a layer: mean absolute Pearson correlation between its units
    - `dead` of the network: 1 if it gives all rows (nearly) the same output, else 0

    >>> module = RegularizedModule(nn.Linear(3, 2))
    >>> measures = function_measures(module, (torch.eye(3), torch.tensor([0, 1, 1])))
    >>> list(measures.layers), measures.whole
    (['network.weight'], {'dead': 0.0})
    """
    owners, activations = _owners(module), dict[str, Tensor]()

    def keep(name: str, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor) and first.is_floating_point() and first.ndim > 1:
            activations[name] = first

    handles = [
        owner.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, owner in owners.items()
    ]
    was_training, fast = module.training, torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # with nested tensors, which layers with hooks do not take
        inputs, targets = module.eval().split(batch)
        outputs = module(*inputs.args, **inputs.kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        module.train(was_training)
        for handle in handles:
            handle.remove()
    units = {name: _by_unit(owners[name], output) for name, output in activations.items()}
    layers = {
        name: {"activation_correlation": mean_correlation(one - one.mean(1, keepdim=True))}
        for name, one in units.items()
    }
    with suppress(Exception):  # outputs of a kind of the user's own
        logits = logits_of(outputs).double()
        return FunctionMeasures(layers, {"dead": float(_is_dead(logits))}, output_scale(logits, targets))
    return FunctionMeasures(layers, {})


def _is_dead(outputs: Float[Tensor, "rows ..."]) -> bool:
    spread, size = (outputs - outputs.mean(0)).square().mean().sqrt(), outputs.square().mean().sqrt()
    return len(outputs) > 1 and bool(spread <= DEAD * size)


def output_scale(outputs: Float[Tensor, "rows ..."], targets: Shaped[Tensor, "rows ..."]) -> float:
    """Scale of a network's outputs: of class scores the median margin of the rows that are classified right (NaN without any),
    else the standard deviation over the rows.

    >>> output_scale(torch.tensor([[3.0, 1.0], [0.0, 5.0], [1.0, 0.0]]), torch.tensor([0, 1, 1]))  # margins 2, 5, −1
    3.5
    """
    if targets.is_floating_point() or outputs.ndim != 2 or targets.ndim != 1 or outputs.shape[1] < 2:
        return float((outputs - outputs.mean(0)).square().mean().sqrt())
    own = outputs.gather(1, targets.long().unsqueeze(1))
    others = outputs.scatter(1, targets.long().unsqueeze(1), -math.inf).amax(1, keepdim=True)
    margins = (own - others)[own > others]
    return float(margins.quantile(0.5)) if len(margins) else math.nan


def _owners(module: RegularizedModule) -> dict[str, nn.Module]:
    """Layers by name of their decayed weight with two or more axes; for a parametrized weight the layer that has it.

    Scripted layers, whose outputs nobody can see, are left out.
    """
    layers = {}
    for name, parameter in module.parameters_named(module.decayed).items():
        if parameter.ndim > 1:
            path = name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
            layers[name] = module.get_submodule(path)
    return {name: layer for name, layer in layers.items() if not isinstance(layer, torch.jit.ScriptModule)}


def _by_unit(owner: nn.Module, output: Float[Tensor, "batch ..."]) -> Float[Tensor, "units rows"]:
    """Activations of each unit over the rows and the positions in each; the units of a convolution are on axis 1."""
    convolution = isinstance(owner, nn.modules.conv._ConvNd)
    units = output.movedim(1, 0) if convolution else output.movedim(-1, 0)
    return units.double().flatten(1)[:, :MOST_ROWS]


# -- norm layers ---------------------------------------------------------------------------------------------------


def scale_invariant_share(module: RegularizedModule, batch: Batch) -> float:
    """Share of decayed entries in layers that are scale-invariant; see `scale_invariant_weights`.

    >>> module = RegularizedModule(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    >>> scale_invariant_share(module, (torch.randn(8, 3), torch.zeros(8)))  # 12 of 20 entries
    0.6
    """
    invariant, owners = _invariant(module, batch), _owners(module)
    entries = {name: module.get_parameter(name).numel() for name in owners}
    return sum(entries[name] for name in invariant) / sum(entries.values()) if entries else 0.0


def scale_invariant_weights(module: RegularizedModule, batch: Batch) -> set[str]:
    """Names of the decayed weights of layers before norm layers: doubling weight and bias leaves training outputs unchanged.

    There λ acts on the effective learning rate η/‖w‖² only (van Laarhoven 1706.05350). None of a network that cannot be tried.

    >>> module = RegularizedModule(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    >>> scale_invariant_weights(module, (torch.randn(8, 3), torch.zeros(8)))
    {'network.0.weight'}
    """
    with suppress(Exception):  # a network that only trains otherwise
        return _invariant(module, batch)
    return set()


@torch.no_grad()
def _invariant(module: RegularizedModule, batch: Batch) -> set[str]:
    inputs, _ = module.split(first_rows(batch, PROBED_ROWS))
    state = {name: value.detach() for name, value in module.named_parameters()}
    expected = _training_outputs(module, state, inputs)
    invariant = set()
    for name, owner in _owners(module).items():
        own = {f"{name.rpartition('.')[0]}.{part}" for part, _ in owner.named_parameters(recurse=False)} | {name}
        doubled = {key: value * 2.0 if key in own else value for key, value in state.items()}
        if _alike(_training_outputs(module, doubled, inputs), expected):
            invariant.add(name)
    return invariant


def _training_outputs(module: RegularizedModule, state: Params, inputs: Inputs) -> Any:
    """Outputs with other parameters, in training mode; no buffer and no noise is used up."""
    module.rewind_noise(0, 0)
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    was_training = module.training
    try:
        return functional_call(module.train(), (dict(state), buffers), inputs.args, dict(inputs.kwargs))
    finally:
        module.train(was_training)


def _alike(first: Any, second: Any) -> bool:
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return False
    return float((first - second).norm()) <= 1e-2 * float(second.norm())
