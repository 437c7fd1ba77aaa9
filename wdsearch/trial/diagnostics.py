"""Diagnostics of one trial: measures of its weights, units, updates and gradients, on which λ acts."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wdsearch.optimizers import OPTIMIZERS
from wdsearch.trial.batches import Batch
from wdsearch.trial.function_measures import FunctionMeasures, function_measures, scale_invariant_weights
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe, decayed_parameters
from wdsearch.trial.result import Diagnosis
from wdsearch.trial.weight_measures import Measures, nonnormality, standardised, weight_measures
from wdsearch.types import Params

BINS = 60
DIGITS = 7


@dataclass(frozen=True)
class Steps:
    """Measurements of one trial's steps.

    `gradient_norms` has the norm of the whole gradient at every step, before clipping. Of the measured updates, `sizes`
    ‖Δw‖/‖w‖ and `angles` between w before and after (radians) have a column for each watched weight; `factors` are the
    schedule's.
    """

    gradient_norms: Float[Tensor, " steps"]
    sizes: Float[Tensor, "measured weights"]
    angles: Float[Tensor, "measured weights"]
    factors: Float[Tensor, " measured"]


class Span(NamedTuple):
    """Length of a trial's training: steps done, steps planned, and planned epochs."""

    done: int
    planned: int
    epochs: int


def diagnose(module: RegularizedModule, batch: Batch | None, steps: Steps, span: Span) -> Diagnosis:
    """All measures of a trial in the present state of its module, on the CPU.

    `batch` has validation rows for the units' activations, `steps` the measurements of its training. Measures that are not
    finite, or are undefined for the network, are left out.
    """
    named = {name: value.detach() for name, value in module.parameters_named(module.decayed).items()}
    weights = {name: torch.view_as_real(one).flatten(-2) if one.is_complex() else one for name, one in named.items()}
    with _one_thread(), torch.no_grad():
        layers = {name: weight_measures(weight) for name, weight in weights.items()}
        of_function = function_measures(module, batch) if batch is not None else FunctionMeasures({}, {})
        for name, measures in of_function.layers.items():
            layers[name] |= measures
    for name, measures in _decay_measures(module, steps, span).items():
        layers[name] |= measures
    invariant = scale_invariant_weights(module, batch) if batch is not None and len(layers) > 1 else set()
    whole = of_function.whole | _complexity(layers, invariant, of_function.scale) | _balance(layers, invariant)
    return _diagnosis(weights, layers, whole | _of_training(module, layers.values(), steps, span))


def diagnose_weights(network: nn.Module, state: Params) -> Diagnosis:
    """Measures of the weights alone, in a state dict, of the parameters that decay by the rule `weights`.

    >>> network = nn.Linear(4, 4, bias=False)
    >>> diagnosis = diagnose_weights(network, {"weight": 2.0 * torch.eye(4)})
    >>> diagnosis.whole["norm"], diagnosis.layers["weight"]["spectral_norm"]
    (4.0, 2.0)
    """
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
    """Run on one thread: several are slower for small matrices, and the rounding depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# -- weights -------------------------------------------------------------------------------------------------------


def _pooled(weights: Sequence[Tensor]) -> Measures:
    """Measures of all weights together; for their shape each weight is standardised first, as layers differ in scale."""
    if not weights:
        return {}
    entries = torch.cat([weight.double().flatten() for weight in weights])
    shape = torch.cat([standardised(weight.double().flatten()) for weight in weights])
    measures = weight_measures(entries)
    if not measures:
        return {}
    return measures | {"kurtosis": float(shape.pow(4).mean()) - 3.0, "nonnormality": nonnormality(shape)}


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
    measures = {
        "stable_rank": _mean(_each(layers, "stable_rank")),
        "spectral_norm": max(_each(layers, "spectral_norm"), default=math.nan),
        "weight_correlation": _mean(_each(layers, "weight_correlation")),
        "activation_correlation": _mean(_each(layers, "activation_correlation")),
    }
    return measures | {"condition": math.exp(_mean([math.log(value) for value in _each(layers, "condition")]))}


def _each(layers: Iterable[Measures], name: str) -> list[float]:
    return [measures[name] for measures in layers if not math.isnan(measures.get(name, math.nan))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


# -- training ------------------------------------------------------------------------------------------------------


def _decay_measures(module: RegularizedModule, steps: Steps, span: Span) -> dict[str, Measures]:
    """Measures of each decayed weight's updates, with the predicted rotation, and its shrinkage by decay."""
    factors, strengths = module.recipe.factors(span.planned), module.strengths.as_dict()
    lr, columns = float(module.rates.as_dict()["lr"]), {name: column for column, name in enumerate(module.decayed)}
    late = len(steps.factors) // 2  # the second half: it settles first
    weights = module.parameters_named(module.decayed)
    measures: dict[str, Measures] = {}
    for keys, names in module.decay_groups():
        decay = float(module.decay(keys, strengths))
        for name in names:
            own: Measures = {"shrinkage": 1.0 - math.exp(-lr * decay * sum(factors[: span.done]))}
            if decay:
                own["timescale"] = 1.0 / (lr * decay * sum(factors))
                own["timescale_epochs"] = own["timescale"] * span.epochs
            if len(steps.sizes):
                own["relative_update"] = float(steps.sizes[late:, columns[name]].mean())
                own["rotation"] = float(steps.angles[late:, columns[name]].mean())
                own["predicted_rotation"] = _predicted(module, name, lr, decay, steps.factors[late:])
            own["effective_rate"] = lr / max(float(weights[name].detach().norm().double().square()), 1e-300)
            measures[name] = own
    return measures


def _predicted(
    module: RegularizedModule, name: str, lr: float, decay: float, factors: Float[Tensor, " measured"]
) -> float:
    """Predicted angle per step in rotational equilibrium, by the optimizer's formula; torch's coupled λ is 2·l2.

    NaN without decay, or where no formula is known.
    """
    optimizer, options = OPTIMIZERS[module.recipe.optimizer], module.recipe.options
    if decay:
        return float(optimizer.rotation(lr * factors, decay, options).mean())
    strengths = module.strengths.as_dict()
    penalty = math.fsum(float(strengths[key]) for key, _ in module.acting("penalty") if name in module.members[key])
    if optimizer.coupled_rotation and penalty:
        return float(optimizer.coupled_rotation(lr * factors, 2.0 * penalty, optimizer.momentum(options)).mean())
    return math.nan


def _complexity(layers: Mapping[str, Measures], invariant: Collection[str], scale: float) -> Measures:
    """The logarithm of the margin-normalised norm: the product of the spectral norms over the scale of the outputs.

    The leading factor of the complexity of Bartlett, Foster & Telgarsky (1706.08498, equation 1.2). A factor on the last layer
    moves it by nothing; layers before norm layers, whose scale does nothing, are left out.
    """
    norms = [measures.get("spectral_norm", 0.0) for name, measures in layers.items() if name not in invariant]
    factors = [norm for norm in norms if norm > 0.0]
    return {"log_complexity": math.fsum(map(math.log, factors)) - math.log(scale)} if factors and scale > 0.0 else {}


def _balance(layers: Mapping[str, Measures], invariant: Collection[str]) -> Measures:
    """The spread of ln(‖Δw‖/‖w‖) over the layers before norm layers, in which alone decay balances updates (2305.17212)."""
    sizes = [math.log(size) for name in sorted(invariant) if (size := layers[name].get("relative_update", 0.0)) > 0.0]
    return (
        {"update_spread": float(torch.tensor(sizes, dtype=torch.float64).std(correction=0))} if len(sizes) > 1 else {}
    )


def _of_training(module: RegularizedModule, layers: Collection[Measures], steps: Steps, span: Span) -> Measures:
    """Measures of the whole network: updates over its layers, gradients over its steps and over those after the first epoch."""
    names = ("relative_update", "rotation", "predicted_rotation", "shrinkage", "timescale", "timescale_epochs")
    means = {name: _mean(_each(layers, name)) for name in names}
    squares = sum((measures.get("norm", math.nan) ** 2 for measures in layers), 0.0)
    if squares:
        means["effective_rate"] = float(module.rates.as_dict()["lr"]) / squares
    if len(steps.gradient_norms):
        means["gradient_norm_max"] = float(steps.gradient_norms.max())
        means["gradient_norm_999"] = float(steps.gradient_norms.quantile(0.999))
    late = steps.gradient_norms[span.planned // max(span.epochs, 1) :]
    if len(late):
        means["gradient_norm_late"] = float(late.max())
    return means


def _rounded(measures: Measures) -> Measures:
    return {name: float(f"{value:.{DIGITS}g}") for name, value in measures.items() if math.isfinite(value)}
