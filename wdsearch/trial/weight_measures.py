"""Measures of single weights: norm, distribution of the entries, spectrum, and similarity of the rows."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Measures = dict[str, float]

TINY = 1e-3
"""Absolute value below which an entry of a weight counts as tiny."""
MOST_SORTED = 1 << 16
LARGEST_SPECTRUM = 2048
"""Shorter side of the largest matrix whose singular values are all computed, which takes seconds."""


def weight_measures(weight: Float[Tensor, "*shape"]) -> Measures:
    """Measures of one weight: norm, spread and kurtosis of its entries; of a matrix also its spectrum and the similarity of rows.

    A kernel (units, channels, *window) is the matrix (units, channels · window). Stable rank is ‖W‖_F²/‖W‖₂² (Rudelson &
    Vershynin math/0503442), `condition` the ratio of the largest to the smallest singular value, `weight_correlation` the
    mean absolute cosine between the rows of different units. Empty for a weight that is not finite.

    >>> measures = weight_measures(torch.eye(4))
    >>> measures["norm"], measures["zeros"], measures["stable_rank"], measures["weight_correlation"]
    (2.0, 0.75, 4.0, 0.0)
    """
    weight = torch.view_as_real(weight).flatten(-2) if weight.is_complex() else weight
    entries = weight.double().flatten()
    if not torch.isfinite(entries).all():
        return {}
    measures = {
        "norm": float(entries.norm()),
        "std": float(entries.std(correction=0)),
        "kurtosis": float(standardised(entries).pow(4).mean()) - 3.0,
        "zeros": float((entries == 0).double().mean()),
        "tiny": float((entries.abs() < TINY).double().mean()),
    }
    if weight.ndim < 2:
        return measures
    matrix = weight.double().flatten(1)
    return measures | _spectrum(matrix) | {"weight_correlation": mean_correlation(matrix)}


def _spectrum(matrix: Float[Tensor, "units inputs"]) -> Measures:
    if min(matrix.shape) > LARGEST_SPECTRUM:
        largest = _largest_singular_value(matrix)
        smallest = math.nan
    else:
        values = torch.linalg.svdvals(matrix)
        largest, smallest = float(values[0]), float(values[-1])
    measures = {"spectral_norm": largest, "condition": largest / smallest if smallest else math.inf}
    return measures | {"stable_rank": float(matrix.square().sum()) / largest**2 if largest else math.nan}


def _largest_singular_value(matrix: Float[Tensor, "units inputs"], steps: int = 30) -> float:
    """Largest singular value by power iteration on WᵀW, started from the sum of the rows."""
    vector = matrix.sum(0)
    for _ in range(steps):
        vector = matrix.T @ (matrix @ (vector / vector.norm()))
    return float(vector.norm().sqrt())


def mean_correlation(units: Float[Tensor, "units entries"]) -> float:
    """Mean absolute cosine between different units' vectors, without those of zeros; NaN for fewer than two units.

    >>> mean_correlation(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))  # cos 45°
    0.707...
    """
    norms = units.norm(dim=1)
    alive = units[norms > 0] / norms[norms > 0].unsqueeze(1)
    pairs = len(alive) * (len(alive) - 1)
    return (float((alive @ alive.T).abs().sum()) - len(alive)) / pairs if pairs else math.nan


def standardised(entries: Float[Tensor, " entries"]) -> Float[Tensor, " entries"]:
    """Entries shifted and scaled to mean 0 and variance 1.

    >>> standardised(torch.tensor([1.0, 3.0]))
    tensor([-1.,  1.])
    """
    return (entries - entries.mean()) / entries.std(correction=0)


def nonnormality(entries: Float[Tensor, " entries"]) -> float:
    """Distance of a distribution from the normal one, whatever its mean and spread: 1 − W′ of Shapiro & Francia (1972).

    W′ is the squared correlation of the sorted entries with the normal quantiles (Blom's positions); 0 is a perfect bell, the
    uniform distribution of torch's initial weights has 0.044. Of many entries, evenly spaced ones of the sorted.

    >>> nonnormality(torch.linspace(-1.0, 1.0, 1001))
    0.0436...
    """
    ordered = entries.double().sort().values
    ordered = ordered[:: max(1, len(ordered) // MOST_SORTED)]
    positions = (torch.arange(1, len(ordered) + 1, dtype=torch.float64) - 0.375) / (len(ordered) + 0.25)
    quantiles = torch.special.ndtri(positions)
    centred = ordered - ordered.mean()
    return 1.0 - float((centred @ quantiles).square() / (centred.square().sum() * quantiles.square().sum()))
