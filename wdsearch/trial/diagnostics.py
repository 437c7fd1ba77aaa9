"""What λ did to one trial: its weights, its units, its updates and its gradients, in numbers."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from wdsearch.optimizers import OPTIMIZERS
from wdsearch.trial.batches import Batch
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe, decayed_parameters
from wdsearch.trial.result import Diagnosis
from wdsearch.types import Params

Measures = dict[str, float]

TINY = 1e-3
"""Below this an entry of a weight counts as tiny."""
BINS = 60
LARGEST_SPECTRUM = 2048
"""Shorter side of the largest weight whose singular values are all computed: that takes seconds."""
MOST_ROWS = 4096
"""Most rows (or places of rows) over which units' activations are correlated."""
DIGITS = 7


@dataclass(frozen=True)
class Steps:
    """What one trial's steps showed.

    `gradient_norms` has the norm of the whole gradient, before it is clipped, of every step. Of the measured updates,
    `sizes` ‖Δw‖/‖w‖ and `angles` between w before and after (radians) have a column for each watched weight, `factors` the
    schedule's.
    """

    gradient_norms: Float[Tensor, " steps"]
    sizes: Float[Tensor, "measured weights"]
    angles: Float[Tensor, "measured weights"]
    factors: Float[Tensor, " measured"]


class Span(NamedTuple):
    """How far a trial was trained: steps done, steps planned, and in how many epochs those were."""

    done: int
    planned: int
    epochs: int


def diagnose(module: RegularizedModule, batch: Batch | None, steps: Steps, span: Span) -> Diagnosis:
    """Everything that is measured of a trial in the state that its module holds, on the CPU.

    `batch` are validation rows for the units' activations, `steps` what its training showed. What is not a finite number, or
    makes no sense for the network, is left out.
    """
    weights = {name: value.detach() for name, value in module.parameters_named(module.decayed).items()}
    with _one_thread(), torch.no_grad():
        layers = {name: weight_measures(weight) for name, weight in weights.items()}
        activations = activation_correlations(module, batch) if batch is not None else {}
        for name, value in activations.items():
            layers[name]["activation_correlation"] = value
    for name, measures in _decay_measures(module, steps, span).items():
        layers[name] |= measures
    return _diagnosis(weights, layers, _of_training(module, layers.values(), steps))


def diagnose_weights(network: nn.Module, state: Params) -> Diagnosis:
    """What can be said of the weights alone, in a state dict of a network, that decay by the rule `weights`."""
    weights = {name: state[name].detach().cpu() for name in decayed_parameters(network, Recipe())}
    with _one_thread():
        return _diagnosis(weights, {name: weight_measures(weight) for name, weight in weights.items()}, {})


def _diagnosis(weights: Params, layers: Mapping[str, Measures], training: Measures) -> Diagnosis:
    with _one_thread():
        whole = _pooled(list(weights.values())) | _over_layers(layers.values()) | training
        counts, edges = _histogram(list(weights.values()))
    named = {name.removeprefix("network."): _rounded(measures) for name, measures in layers.items()}
    return Diagnosis(_rounded(whole), named, {"edges": edges, "counts": counts})


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small matrices are decomposed much slower by several threads than by one, and rounded by their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# -- weights -------------------------------------------------------------------------------------------------------


def weight_measures(weight: Float[Tensor, "*shape"]) -> Measures:
    """Of one weight: norm, spread and shape of its entries; of a matrix its spectrum and how alike its rows are.

    A kernel (units, channels, *window) is the matrix (units, channels · window). Stable rank is ‖W‖_F²/‖W‖₂² (Rudelson &
    Vershynin math/0503442), `condition` the ratio of the largest to the smallest singular value, `weight_correlation` the
    mean absolute cosine between the rows of different units. Nothing is said of a weight that is not finite.
    """
    entries = weight.double().flatten()
    if not torch.isfinite(entries).all():
        return {}
    found = {
        "norm": float(entries.norm()),
        "std": float(entries.std(correction=0)),
        "kurtosis": float(_standardised(entries).pow(4).mean()) - 3.0,
        "zeros": float((entries == 0).double().mean()),
        "tiny": float((entries.abs() < TINY).double().mean()),
    }
    if weight.ndim < 2:
        return found
    matrix = weight.double().flatten(1)
    return found | _spectrum(matrix) | {"weight_correlation": mean_correlation(matrix)}


def _spectrum(matrix: Float[Tensor, "units inputs"]) -> Measures:
    if min(matrix.shape) > LARGEST_SPECTRUM:
        largest = _largest_singular_value(matrix)
        smallest = math.nan
    else:
        values = torch.linalg.svdvals(matrix)
        largest, smallest = float(values[0]), float(values[-1])
    found = {"spectral_norm": largest, "condition": largest / smallest if smallest else math.inf}
    return found | {"stable_rank": float(matrix.square().sum()) / largest**2 if largest else math.nan}


def _largest_singular_value(matrix: Float[Tensor, "units inputs"], steps: int = 30) -> float:
    """By power iteration on WᵀW from the row sums."""
    vector = matrix.sum(0)
    for _ in range(steps):
        vector = matrix.T @ (matrix @ (vector / vector.norm()))
    return float(vector.norm().sqrt())


def mean_correlation(units: Float[Tensor, "units entries"]) -> float:
    """Mean absolute cosine between different units' vectors; units of zeros are no units. NaN below two units."""
    norms = units.norm(dim=1)
    alive = units[norms > 0] / norms[norms > 0].unsqueeze(1)
    pairs = len(alive) * (len(alive) - 1)
    return (float((alive @ alive.T).abs().sum()) - len(alive)) / pairs if pairs else math.nan


def _standardised(entries: Float[Tensor, " entries"]) -> Float[Tensor, " entries"]:
    return (entries - entries.mean()) / entries.std(correction=0)


def _pooled(weights: Sequence[Tensor]) -> Measures:
    """Of all weights together; for the kurtosis each is standardised before, for layers differ in scale."""
    if not weights:
        return {}
    entries = torch.cat([weight.double().flatten() for weight in weights])
    shape = torch.cat([_standardised(weight.double().flatten()) for weight in weights])
    found = weight_measures(entries)
    return found | {"kurtosis": float(shape.pow(4).mean()) - 3.0} if found else {}


def _histogram(weights: Sequence[Tensor]) -> tuple[list[int], list[float]]:
    if not weights:
        return [], []
    entries = torch.cat([weight.double().flatten() for weight in weights])
    bound = float(entries.abs().max())
    if not math.isfinite(bound):
        return [], []
    edges = torch.linspace(-bound or -1.0, bound or 1.0, BINS + 1, dtype=torch.float64)
    counts = torch.histogram(entries, edges).hist.int().tolist()
    return counts, [float(f"{edge:.5g}") for edge in edges.tolist()]


def _over_layers(layers: Collection[Measures]) -> Measures:
    """Means over the layers; of the condition numbers, which differ by powers of ten, the geometric one."""
    found = {
        "stable_rank": _mean(_each(layers, "stable_rank")),
        "spectral_norm": max(_each(layers, "spectral_norm"), default=math.nan),
        "weight_correlation": _mean(_each(layers, "weight_correlation")),
        "activation_correlation": _mean(_each(layers, "activation_correlation")),
    }
    return found | {"condition": math.exp(_mean([math.log(value) for value in _each(layers, "condition")]))}


def _each(layers: Iterable[Measures], name: str) -> list[float]:
    return [measures[name] for measures in layers if not math.isnan(measures.get(name, math.nan))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


# -- activations ---------------------------------------------------------------------------------------------------


def activation_correlations(module: RegularizedModule, batch: Batch) -> Measures:
    """By name of each decayed weight: mean absolute correlation (Pearson) between its layer's units over some rows."""
    owners = _owners(module)
    outputs: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        found = output[0] if isinstance(output, tuple) else output
        if isinstance(found, Tensor) and found.is_floating_point() and found.ndim > 1:
            outputs[name] = found

    handles = [
        owner.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, owner in owners.items()
    ]
    was_training = module.training
    try:
        inputs, _ = module.eval().split(batch)
        module(*inputs.args, **inputs.kwargs)
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    units = {name: _by_unit(owners[name], output) for name, output in outputs.items()}
    return {name: mean_correlation(one - one.mean(1, keepdim=True)) for name, one in units.items()}


def _owners(module: RegularizedModule) -> dict[str, nn.Module]:
    """The layer of each decayed weight of several axes; of a parametrized weight the layer that has it."""
    found = {}
    for name, parameter in module.parameters_named(module.decayed).items():
        if parameter.ndim > 1:
            path = name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
            found[name] = module.get_submodule(path)
    return found


def _by_unit(owner: nn.Module, output: Float[Tensor, "batch ..."]) -> Float[Tensor, "units rows"]:
    """Activations of each unit over the rows, and over the places of each; convolutions have their units second."""
    convolution = isinstance(owner, nn.modules.conv._ConvNd)
    units = output.movedim(1, 0) if convolution else output.movedim(-1, 0)
    return units.double().flatten(1)[:, :MOST_ROWS]


# -- training ------------------------------------------------------------------------------------------------------


def _decay_measures(module: RegularizedModule, steps: Steps, span: Span) -> dict[str, Measures]:
    """Of each decayed weight: how its updates were, beside what theory says, and how much of it decay took away."""
    factors, strengths = module.recipe.factors(span.planned), module.strengths.as_dict()
    lr, places = float(module.rates.as_dict()["lr"]), {name: place for place, name in enumerate(module.decayed)}
    late = len(steps.factors) // 2  # the second half: it settles first
    found: dict[str, Measures] = {}
    for keys, names in module.decay_groups():
        decay = float(module.decay(keys, strengths))
        for name in names:
            own: Measures = {"shrinkage": 1.0 - math.exp(-lr * decay * sum(factors[: span.done]))}
            if decay:
                own["timescale"] = 1.0 / (lr * decay * sum(factors))
                own["timescale_epochs"] = own["timescale"] * span.epochs
            if len(steps.sizes):
                own["relative_update"] = float(steps.sizes[late:, places[name]].mean())
                own["rotation"] = float(steps.angles[late:, places[name]].mean())
                own["predicted_rotation"] = _predicted(module, name, lr, decay, steps.factors[late:])
            own["effective_rate"] = lr / max(float(module.get_parameter(name).detach().double().square().sum()), 1e-300)
            found[name] = own
    return found


def _predicted(
    module: RegularizedModule, name: str, lr: float, decay: float, factors: Float[Tensor, " measured"]
) -> float:
    """Angle a step in rotational equilibrium, by the optimizer's formula; torch's coupled λ is 2·l2.

    NaN where there is no decay, or no formula.
    """
    optimizer, options = OPTIMIZERS[module.recipe.optimizer], module.recipe.options
    if decay:
        return float(optimizer.rotation(lr * factors, decay, options).mean())
    strengths = module.strengths.as_dict()
    penalty = math.fsum(float(strengths[key]) for key, _ in module.acting("penalty") if name in module.members[key])
    if optimizer.coupled_rotation and penalty:
        return float(optimizer.coupled_rotation(lr * factors, 2.0 * penalty, optimizer.momentum(options)).mean())
    return math.nan


def _of_training(module: RegularizedModule, layers: Collection[Measures], steps: Steps) -> Measures:
    """Of the whole network: updates over its layers, gradients over its steps."""
    names = ("relative_update", "rotation", "predicted_rotation", "shrinkage", "timescale", "timescale_epochs")
    found = {name: _mean(_each(layers, name)) for name in names}
    sizes = [math.log(size) for size in _each(layers, "relative_update") if size > 0]
    if len(sizes) > 1:
        found["update_spread"] = float(torch.tensor(sizes, dtype=torch.float64).std(correction=0))
    squares = sum((measures.get("norm", math.nan) ** 2 for measures in layers), 0.0)
    if squares:
        found["effective_rate"] = float(module.rates.as_dict()["lr"]) / squares
    if len(steps.gradient_norms):
        found["gradient_norm_max"] = float(steps.gradient_norms.max())
        found["gradient_norm_999"] = float(steps.gradient_norms.quantile(0.999))
    return found


def _rounded(measures: Measures) -> Measures:
    return {name: float(f"{value:.{DIGITS}g}") for name, value in measures.items() if math.isfinite(value)}


# -- norm layers ---------------------------------------------------------------------------------------------------


def scale_invariant_share(module: RegularizedModule, batch: Batch) -> float:
    """Share of the decayed entries whose layer may be doubled, bias and all, without a change of the training outputs.

    There λ acts on the effective learning rate η/‖w‖² only (van Laarhoven 1706.05350).
    """
    inputs, _ = module.split(batch)
    state = {name: value.detach() for name, value in module.named_parameters()}
    buffers = {name: value.clone() for name, value in module.named_buffers()}

    def outputs(parameters: Mapping[str, Tensor]) -> Any:
        module.rewind_noise(0, 0)
        return functional_call(module, (dict(parameters), buffers), inputs.args, dict(inputs.kwargs))

    with torch.no_grad():
        expected, free, entries = outputs(state), 0, 0
        for name, owner in _owners(module).items():
            own = {f"{name.rpartition('.')[0]}.{part}" for part, _ in owner.named_parameters(recurse=False)} | {name}
            changed = {key: value * 2.0 if key in own else value for key, value in state.items()}
            entries += state[name].numel()
            free += state[name].numel() if _alike(outputs(changed), expected) else 0
    return free / entries if entries else 0.0


def _alike(first: Any, second: Any) -> bool:
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return False
    return float((first - second).norm()) <= 1e-2 * float(second.norm())
