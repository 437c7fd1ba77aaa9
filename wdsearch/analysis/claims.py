"""The textbook's claims about λ, tested on the outcomes of one network and its data; no answer is assumed.

An effect is a change from λ = 0 to λ* (the best trial's λ, or a substitute that acts), paired by seed; each has a smallest
size that matters in practice. A claim is *supported* if an effect as claimed is seen and none against it,
*contradicted* if one against it is seen, or if all are surely smaller than what matters though λ acts, else *undetermined*.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from wdsearch.analysis.bootstrap import AGAINST, FEWEST, FOR, NONE, Effect, effect
from wdsearch.analysis.design import DECAY, DROPOUT, L1
from wdsearch.analysis.evidence import Evidence, Table, chosen_without, curve, finite_mean, logarithm
from wdsearch.analysis.outcomes import CONTRADICTED, UNDETERMINED, Claim, Curve
from wdsearch.analysis.verdicts import SHARE, Verdict, all_of, varying, verdict_of

LOSS_SHARE = 0.01
"""Smallest change of a loss or a gap, as a share of the validation loss without decay."""
CORRELATION = 0.01
ZEROS = 0.01
"""Smallest change of the share of weights that are exactly zero."""
SPREAD = 0.1
"""Smallest change of the standard deviation over layers of ln(‖Δw‖/‖w‖)."""
DIVERGENCES = 0.1
"""Smallest change of the share of trainings that diverge."""
FAST = 10.0
"""Multiple of the winner's rate from which on a rate is called high."""


def claims_of(evidence: Evidence) -> tuple[Claim, ...]:
    """Every claim, tested."""
    return tuple(replace(test(evidence), key=key) for key, test in TESTS.items())


# -- the claims ----------------------------------------------------------------------------------------------------


def complexity(evidence: Evidence) -> Claim:
    """Lower complexity: the weights' norm falls and, where matrices have several rows, their stable rank does not rise."""
    norm, rank = (evidence.at_reference(name, relative=True) for name in ("norm", "stable_rank"))
    states = [norm.stands(SHARE)] + ([AGAINST] if AGAINST in varying(rank, SHARE) else [])
    return _along_decay(
        evidence,
        verdict_of(states, evidence, norm, rank),
        _share(norm),
        "share",
        ("norm", "stable_rank", "spectral_norm"),
    )


def bell(evidence: Evidence) -> Claim:
    """L2 makes a narrow bell: the weights' spread falls, and no more of them become exactly zero."""
    std, zeros = evidence.at_reference("std", relative=True), evidence.at_reference("zeros")
    states = [std.stands(SHARE)] + ([AGAINST] if zeros.stands(ZEROS, falls=False) == FOR else [])
    return _along_decay(
        evidence, verdict_of(states, evidence, std), _share(std), "share", ("std", "kurtosis", "zeros", "tiny")
    )


def zeros(evidence: Evidence) -> Claim:
    """L1 makes exact zeros: their share rises along its path, and by more than decay at λ* makes it rise."""
    l1_shares, decay_shares = evidence.along(L1, "zeros"), evidence.along(DECAY, "zeros")
    rises = [along - off for along, off in zip(_path_means(l1_shares), l1_shares[0.0], strict=True)]
    decay_rises = [
        after - before for before, after in zip(decay_shares[0.0], decay_shares[evidence.axes.reference], strict=True)
    ]
    change = effect([rise - other for rise, other in zip(rises, decay_rises, strict=True)])
    verdict = verdict_of([change.stands(ZEROS, falls=False)], evidence, change, acts=True)
    numbers = {
        "zeros_l1": finite_mean(l1_shares[max(l1_shares)]),
        "largest_l1": max(l1_shares),
        "zeros_off": finite_mean(l1_shares[0.0]),
        "zeros_decay": finite_mean(decay_shares[evidence.axes.reference]),
        "diverged": evidence.diverged(L1),
    }
    curves = {
        "zeros_l1": curve(l1_shares),
        "zeros_decay": curve(decay_shares),
        "val_loss_l1": curve(evidence.along(L1, "val_loss")),
    }
    return _claim(evidence, verdict, change, "weights", numbers, curves)


def collinearity(evidence: Evidence) -> Claim:
    """Less collinearity: units' weights or activations correlate less, or the weights' condition number falls.

    The effect is that of the first of the three that decides.
    """
    activations, weights = (evidence.at_reference(f"{of}_correlation") for of in ("activation", "weight"))
    condition = evidence.at_reference("condition", relative=True)
    sizes = ((activations, CORRELATION), (weights, CORRELATION), (condition, SHARE))
    judged = [(change, varying(change, smallest)) for change, smallest in sizes]
    verdict = verdict_of([state for _, states in judged for state in states], evidence, activations, weights, condition)
    deciding = AGAINST if verdict[0] == CONTRADICTED else FOR
    measured = [change for change, _ in judged if change.count] or [condition]
    change = next((change for change, states in judged if deciding in states), measured[0])
    effect_shown, unit = (_share(change), "share") if change is condition else (change, "correlation")
    names = ("activation_correlation", "weight_correlation", "condition")
    return _along_decay(evidence, verdict, effect_shown, unit, names)


def gap(evidence: Evidence) -> Claim:
    """A smaller gap: validation minus training loss falls.

    >>> from wdsearch.analysis.design import Axes
    >>> from wdsearch.analysis.outcomes import Outcome
    >>> metrics = {0.0: {"gap": 0.5, "val_loss": 1.0}, 0.1: {"gap": 0.3, "val_loss": 0.9}}
    >>> trained = [(x, s, metrics[x]) for x in metrics for s in range(5)]
    >>> outcomes = [Outcome(DECAY, s, 0.01, {DECAY: x}, {}, "finished", values, {}) for x, s, values in trained]
    >>> claim = gap(Evidence(tuple(outcomes), Axes(DECAY, reference=0.1, l1=L1, dropout="", rate=0.01)))
    >>> claim.verdict, round(claim.effect, 2)
    ('supported', -0.2)
    """
    change = evidence.at_reference("gap")
    verdict = verdict_of([change.stands(_loss_that_matters(evidence))], evidence, change)
    return _along_decay(evidence, verdict, change, "loss", ("gap", "train_loss", "val_loss"))


def optimum(evidence: Evidence) -> Claim:
    """Validation loss gets better up to a point, and worse beyond: the best λ beats 0, and the largest λ loses to it.

    The best λ > 0 is chosen for each seed by the others.
    """
    losses, smallest = evidence.along(DECAY, "val_loss"), _loss_that_matters(evidence)
    best, largest = chosen_without(losses, [strength for strength in losses if strength > 0]), max(losses)
    better = effect([losses[strength][seed] - losses[0.0][seed] for seed, strength in enumerate(best)])
    at_largest = losses[largest]
    worse = effect([at_largest[seed] - losses[x][seed] if x < largest else math.nan for seed, x in enumerate(best)])
    states = [better.stands(smallest), worse.stands(smallest, falls=False)]
    verdict = all_of(states, evidence, better)
    if largest in best and verdict[0] == UNDETERMINED:
        verdict = (UNDETERMINED, "edge")
    if states == [FOR, NONE]:
        verdict = (CONTRADICTED, "plateau")
    numbers = {"best": _geometric_mean(best), "beyond": worse.mean, "beyond_low": worse.low, "beyond_high": worse.high}
    return _along_decay(evidence, verdict, better, "loss", ("val_loss", "train_loss"), numbers)


def updates(evidence: Evidence) -> Claim:
    """Controlled update sizes: layers' relative updates ‖Δw‖/‖w‖ become more alike (balanced rotation, 2305.17212)."""
    change = evidence.at_reference("update_spread")
    verdict = verdict_of(varying(change, SPREAD), evidence, change)
    names = ("update_spread", "relative_update", "rotation", "predicted_rotation")
    return _along_decay(evidence, verdict, change, "log", names)


def gradients(evidence: Evidence) -> Claim:
    """No exploding gradients at ten and more times the rate: the largest norm is smaller, and fewer trainings diverge."""
    norms, reference = evidence.by_rate("gradient_norm_max"), evidence.axes.reference
    rates = [lr for decay, lr in norms if decay > 0 and lr >= 0.999 * FAST * evidence.axes.rate]
    pairs = [(norms[0.0, lr], norms[reference, lr]) for lr in rates]
    sizes = effect([_mean_log_ratio(pairs, seed) for seed in range(evidence.seeds)])
    failed = {point: list(map(_failed, losses)) for point, losses in evidence.by_rate("val_loss").items()}
    counts = [_added_failures(failed, reference, rates, seed) for seed in range(evidence.seeds)]
    failures = effect(counts)
    measured = sizes.count + sizes.worse + sizes.better
    states = ([sizes.stands(SHARE)] if measured else []) + ([failures.stands(DIVERGENCES)] if rates else [])
    verdict = verdict_of(states, evidence, sizes, failures, acts=True)
    effect_shown, unit = (failures, "runs") if sizes.count < FEWEST and any(counts) else (_share(sizes), "share")
    sides = {"off": 0.0, "on": reference}
    curves = {
        f"{name}_{side}": curve(_row(table, 0, decay))
        for name, table in (("gradient_norm_max", norms), ("diverged", failed))
        for side, decay in sides.items()
    }
    numbers = {f"diverged_{side}": _failures(failed, decay, rates) for side, decay in sides.items() if rates}
    return _claim(evidence, verdict, effect_shown, unit, numbers | {"runs": float(len(rates) * evidence.seeds)}, curves)


def dropout(evidence: Evidence) -> Claim:
    """Better with dropout than either alone; the best of both and the best of one are chosen for each seed by the others."""
    losses = evidence.beside_dropout("val_loss")
    if not losses:
        return _claim(evidence, (UNDETERMINED, "no_dropout"), effect([]), "loss", {}, {})
    both = chosen_without(losses, [point for point in losses if min(point) > 0])
    alone = chosen_without(losses, [point for point in losses if min(point) == 0])
    losses_of_both = [losses[point][seed] for seed, point in enumerate(both)]
    losses_alone = [losses[point][seed] for seed, point in enumerate(alone)]
    change = effect([together - alone for together, alone in zip(losses_of_both, losses_alone, strict=True)])
    smallest = LOSS_SHARE * abs(finite_mean(value for point in alone for value in losses[point]))
    verdict = verdict_of([change.stands(smallest)], evidence, change, acts=True)
    rates = sorted({rate for _, rate in losses})
    curves = {f"val_loss_{rate:g}": curve(_row(losses, 1, rate)) for rate in rates}
    numbers = {
        "best_decay": _geometric_mean(strength for strength, _ in both),
        "best_dropout": finite_mean(rate for _, rate in both),
        "both": finite_mean(losses_of_both),
        "alone": finite_mean(losses_alone),
        "diverged": evidence.diverged(DROPOUT),
    }
    return _claim(evidence, verdict, change, "loss", numbers, curves)


# -- shared parts ---------------------------------------------------------------------------------------------------


def _along_decay(
    evidence: Evidence,
    verdict: Verdict,
    change: Effect,
    unit: str,
    names: Sequence[str],
    more: Mapping[str, float] = MappingProxyType({}),
) -> Claim:
    """A claim with each of these quantities along λ, and at 0 and λ*."""
    tables = {name: evidence.along(DECAY, name) for name in names}
    numbers = {"diverged": evidence.diverged(DECAY)} | dict(more)
    for name, table in tables.items():
        numbers |= {f"{name}_off": finite_mean(table[0.0]), f"{name}_on": finite_mean(table[evidence.axes.reference])}
    return _claim(evidence, verdict, change, unit, numbers, {name: curve(table) for name, table in tables.items()})


def _claim(
    evidence: Evidence,
    verdict: Verdict,
    change: Effect,
    unit: str,
    numbers: Mapping[str, float],
    curves: Mapping[str, Curve],
) -> Claim:
    all_numbers = {"reference": evidence.axes.reference, "seeds": float(evidence.seeds)} | dict(numbers)
    finite = {name: value for name, value in all_numbers.items() if math.isfinite(value)}
    drawn = {name: points for name, points in curves.items() if points.x}
    word, reason = verdict
    return Claim("", word, change.mean, change.low, change.high, unit, finite, drawn, reason)


def _share(change: Effect) -> Effect:
    """A change of logarithms as a share of the first value: −0.43 is 43 % less."""
    return replace(change, mean=math.expm1(change.mean), low=math.expm1(change.low), high=math.expm1(change.high))


def _loss_that_matters(evidence: Evidence) -> float:
    """Smallest change of a loss that matters: a share of that without decay or, where all of those diverged, with λ*."""
    losses = evidence.along(DECAY, "val_loss")
    without = finite_mean(losses[0.0])
    return LOSS_SHARE * abs(without if math.isfinite(without) else finite_mean(losses[evidence.axes.reference]))


def _path_means(path: Mapping[float, Sequence[float]]) -> list[float]:
    """Mean along a path for each seed, 0 left out."""
    rows = [values for strength, values in path.items() if strength > 0]
    return [finite_mean(row[seed] for row in rows) for seed in range(len(path[0.0]))]


def _geometric_mean(values: Iterable[float]) -> float:
    return math.exp(finite_mean(map(math.log, values)))


def _mean_log_ratio(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int) -> float:
    """Mean log ratio of a seed's values with decay to those without; ±∞ if one side diverged, NaN if both did everywhere."""
    logs = [logarithm(after[seed]) - logarithm(before[seed]) for before, after in pairs]
    known = [value for value in logs if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _failed(loss: float) -> float:
    return float(not math.isfinite(loss))


def _failures(failed: Table[tuple[float, ...]], decay: float, rates: Sequence[float]) -> float:
    """Number of trainings that diverged with a decay, over some rates and all seeds."""
    return sum(sum(failed[decay, lr]) for lr in rates)


def _added_failures(failed: Table[tuple[float, ...]], reference: float, rates: Sequence[float], seed: int) -> float:
    """Share of a seed's trainings that diverge with λ*, minus that without decay; NaN without rates."""
    return finite_mean(failed[reference, lr][seed] - failed[0.0, lr][seed] for lr in rates)


def _row(table: Table[tuple[float, ...]], coordinate: int, value: float) -> dict[float, Sequence[float]]:
    """The points of a table of two coordinates where one has a value, by the other."""
    return {point[1 - coordinate]: values for point, values in table.items() if point[coordinate] == value}


TESTS: dict[str, Callable[[Evidence], Claim]] = {
    "complexity": complexity,
    "bell": bell,
    "zeros": zeros,
    "collinearity": collinearity,
    "gap": gap,
    "optimum": optimum,
    "updates": updates,
    "gradients": gradients,
    "dropout": dropout,
}
