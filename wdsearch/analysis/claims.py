"""The textbook's claims about λ, tested on the outcomes of one network and its data: nothing here knows the answer.

An effect is a change from λ = 0 to λ* (what the search found, or what stands for it), paired by seed, and its smallest size
that matters in practice stands beside it. A claim is *supported* if an effect as claimed is seen and none against it,
*contradicted* if one against it is seen, or if all are surely smaller than what matters though λ acts, else *undetermined*.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from wdsearch.analysis.bootstrap import AGAINST, FEWEST, FOR, NONE, Effect, effect
from wdsearch.analysis.design import DECAY, DROPOUT, L1
from wdsearch.analysis.evidence import Evidence, chosen_without, curve, finite_mean, logarithm
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
"""From how many times the winner's rate on a rate is called high."""


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
    path, decay = evidence.along(L1, "zeros"), evidence.along(DECAY, "zeros")
    rises = [along - off for along, off in zip(_path_means(path), path[0.0], strict=True)]
    beside = [after - before for before, after in zip(decay[0.0], decay[evidence.axes.reference], strict=True)]
    found = effect([rise - other for rise, other in zip(rises, beside, strict=True)])
    verdict = verdict_of([found.stands(ZEROS, falls=False)], evidence, found, acts=True)
    numbers = {
        "zeros_l1": finite_mean(path[max(path)]),
        "largest_l1": max(path),
        "zeros_off": finite_mean(path[0.0]),
        "zeros_decay": finite_mean(decay[evidence.axes.reference]),
        "diverged": evidence.diverged(L1),
    }
    curves = {
        "zeros_l1": curve(path),
        "zeros_decay": curve(decay),
        "val_loss_l1": curve(evidence.along(L1, "val_loss")),
    }
    return _claim(evidence, verdict, found, "weights", numbers, curves)


def collinearity(evidence: Evidence) -> Claim:
    """Less collinearity: units' weights or activations correlate less, or the weights' condition number falls.

    The effect is that of the first of the three that decides.
    """
    activations, weights = (evidence.at_reference(f"{of}_correlation") for of in ("activation", "weight"))
    condition = evidence.at_reference("condition", relative=True)
    sizes = ((activations, CORRELATION), (weights, CORRELATION), (condition, SHARE))
    judged = [(found, varying(found, smallest)) for found, smallest in sizes]
    verdict = verdict_of([state for _, states in judged for state in states], evidence, activations, weights, condition)
    deciding = AGAINST if verdict[0] == CONTRADICTED else FOR
    measured = [found for found, _ in judged if found.count] or [condition]
    found = next((found for found, states in judged if deciding in states), measured[0])
    shown, unit = (_share(found), "share") if found is condition else (found, "correlation")
    names = ("activation_correlation", "weight_correlation", "condition")
    return _along_decay(evidence, verdict, shown, unit, names)


def gap(evidence: Evidence) -> Claim:
    """A smaller gap: validation minus training loss falls."""
    found = evidence.at_reference("gap")
    verdict = verdict_of([found.stands(_loss_that_matters(evidence))], evidence, found)
    return _along_decay(evidence, verdict, found, "loss", ("gap", "train_loss", "val_loss"))


def optimum(evidence: Evidence) -> Claim:
    """Validation loss gets better up to a point, and worse beyond: the best λ beats 0, and the largest λ loses to it.

    The best λ > 0 is chosen for each seed by the others.
    """
    losses, smallest = evidence.along(DECAY, "val_loss"), _loss_that_matters(evidence)
    best, largest = chosen_without(losses, [x for x in losses if x > 0]), max(losses)
    better = effect([losses[x][seed] - losses[0.0][seed] for seed, x in enumerate(best)])
    worse = effect(
        [losses[largest][seed] - losses[x][seed] if x < largest else math.nan for seed, x in enumerate(best)]
    )
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
    found = evidence.at_reference("update_spread")
    verdict = verdict_of(varying(found, SPREAD), evidence, found)
    names = ("update_spread", "relative_update", "rotation", "predicted_rotation")
    return _along_decay(evidence, verdict, found, "log", names)


def gradients(evidence: Evidence) -> Claim:
    """No exploding gradients at ten and more times the rate: the largest norm is smaller, and fewer trainings diverge."""
    norms, reference = evidence.by_rate("gradient_norm_max"), evidence.axes.reference
    rates = [lr for decay, lr in norms if decay > 0 and lr >= 0.999 * FAST * evidence.axes.rate]
    pairs = [(norms[0.0, lr], norms[reference, lr]) for lr in rates]
    sizes = effect([_mean_log_ratio(pairs, seed) for seed in range(evidence.seeds)])
    failed = {place: [_failed(value) for value in values] for place, values in evidence.by_rate("val_loss").items()}
    counts = [finite_mean(failed[reference, lr][s] - failed[0.0, lr][s] for lr in rates) for s in range(evidence.seeds)]
    ends = effect(counts)
    measured = sizes.count + sizes.worse + sizes.better
    states = ([sizes.stands(SHARE)] if measured else []) + ([ends.stands(DIVERGENCES)] if rates else [])
    verdict = verdict_of(states, evidence, sizes, ends, acts=True)
    shown, unit = (ends, "runs") if sizes.count < FEWEST and any(counts) else (_share(sizes), "share")
    parts = {"off": 0.0, "on": reference}
    curves = {
        f"{name}_{side}": curve({lr: values for (decay, lr), values in table.items() if decay == x})
        for name, table in (("gradient_norm_max", norms), ("diverged", failed))
        for side, x in parts.items()
    }
    numbers = {f"diverged_{side}": float(sum(sum(failed[x, lr]) for lr in rates)) for side, x in parts.items() if rates}
    return _claim(evidence, verdict, shown, unit, numbers | {"runs": float(len(rates) * evidence.seeds)}, curves)


def dropout(evidence: Evidence) -> Claim:
    """Better with dropout than either alone; the best of both and the best of one are chosen for each seed by the others."""
    losses = evidence.beside_dropout("val_loss")
    if not losses:
        return _claim(evidence, (UNDETERMINED, "no_dropout"), effect([]), "loss", {}, {})
    both = chosen_without(losses, [place for place in losses if min(place) > 0])
    alone = chosen_without(losses, [place for place in losses if min(place) == 0])
    found = effect(
        [losses[two][seed] - losses[one][seed] for seed, (two, one) in enumerate(zip(both, alone, strict=True))]
    )
    smallest = LOSS_SHARE * abs(finite_mean(value for place in alone for value in losses[place]))
    verdict = verdict_of([found.stands(smallest)], evidence, found, acts=True)
    rates = sorted({rate for _, rate in losses})
    curves = {
        f"val_loss_{rate:g}": curve({x: values for (x, other), values in losses.items() if other == rate})
        for rate in rates
    }
    numbers = {
        "best_decay": _geometric_mean(x for x, _ in both),
        "best_dropout": finite_mean(rate for _, rate in both),
        "both": finite_mean(losses[place][seed] for seed, place in enumerate(both)),
        "alone": finite_mean(losses[place][seed] for seed, place in enumerate(alone)),
        "diverged": evidence.diverged(DROPOUT),
    }
    return _claim(evidence, verdict, found, "loss", numbers, curves)


# -- what they share -----------------------------------------------------------------------------------------------


def _along_decay(
    evidence: Evidence,
    verdict: Verdict,
    found: Effect,
    unit: str,
    names: Sequence[str],
    more: Mapping[str, float] = MappingProxyType({}),
) -> Claim:
    """A claim with each of these quantities along λ, and at 0 and λ*."""
    tables = {name: evidence.along(DECAY, name) for name in names}
    numbers = {"diverged": evidence.diverged(DECAY)} | dict(more)
    for name, table in tables.items():
        numbers |= {f"{name}_off": finite_mean(table[0.0]), f"{name}_on": finite_mean(table[evidence.axes.reference])}
    return _claim(evidence, verdict, found, unit, numbers, {name: curve(table) for name, table in tables.items()})


def _claim(
    evidence: Evidence,
    verdict: Verdict,
    found: Effect,
    unit: str,
    numbers: Mapping[str, float],
    curves: Mapping[str, Curve],
) -> Claim:
    known = {"reference": evidence.axes.reference, "seeds": float(evidence.seeds)} | dict(numbers)
    known = {name: value for name, value in known.items() if math.isfinite(value)}
    drawn = {name: one for name, one in curves.items() if one.x}
    word, reason = verdict
    return Claim("", word, found.mean, found.low, found.high, unit, known, drawn, reason)


def _share(found: Effect) -> Effect:
    """A change of logarithms as a share of the first value: −0.43 is 43 % less."""
    return replace(found, mean=math.expm1(found.mean), low=math.expm1(found.low), high=math.expm1(found.high))


def _loss_that_matters(evidence: Evidence) -> float:
    """A share of the validation loss without decay, or, where all of that diverged, with λ*."""
    losses = evidence.along(DECAY, "val_loss")
    without = finite_mean(losses[0.0])
    return LOSS_SHARE * abs(without if math.isfinite(without) else finite_mean(losses[evidence.axes.reference]))


def _path_means(path: Mapping[float, Sequence[float]]) -> list[float]:
    """Of each seed the mean along a path, 0 left out."""
    rows = [values for x, values in path.items() if x > 0]
    return [finite_mean(row[seed] for row in rows) for seed in range(len(path[0.0]))]


def _geometric_mean(values: Iterable[float]) -> float:
    return math.exp(finite_mean(map(math.log, values)))


def _mean_log_ratio(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int) -> float:
    """How much smaller a seed's values are with decay; ±∞ if one side diverged, NaN if both did everywhere."""
    logs = [logarithm(after[seed]) - logarithm(before[seed]) for before, after in pairs]
    known = [value for value in logs if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _failed(loss: float) -> float:
    return float(not math.isfinite(loss))


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
