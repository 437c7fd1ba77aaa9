"""The textbook's claims about λ, tested on the outcomes of one network and its data; no answer is assumed.

An effect is a change from λ = 0 to λ* (the best trial's λ, or a substitute that acts), paired by seed; each has a smallest
size that matters in practice. A claim about what falls with λ is tested at λ* and as a trend over all λ that were trained, and
both must show it. What has to be chosen (a best λ) is chosen by one half of the seeds and judged by the other.

A claim is *supported*, *contradicted* (the opposite is seen), of *no_effect* (one of a size that matters is excluded, though λ
acts) or *undetermined*. In a world without any effect at most one explanation in twenty has a false direction anywhere in it
(`wdsearch.analysis.verdicts`; simulated by `tests/benchmarks/null_worlds.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from wdsearch.analysis._findings import (
    LOSS_SHARE,
    SHARE,
    Finding,
    Quantity,
    as_share,
    claim_with,
    falling,
    loss_that_matters,
    off_and_on,
    why_open,
)
from wdsearch.analysis.design import DECAY, DROPOUT, L1
from wdsearch.analysis.effects import FEWEST, Effect, effect
from wdsearch.analysis.evidence import FAILED, Evidence, Table, chosen_by, curve, differences, finite_mean, logarithm
from wdsearch.analysis.outcomes import Claim
from wdsearch.analysis.verdicts import RISES, UNTESTED, agreeing, all_of, any_of, p_values, verdicts

COLLINEARITY = (
    Quantity("activation_correlation", "correlation", 0.01),
    Quantity("weight_correlation", "correlation", 0.01),
    Quantity("condition", "share", SHARE, relative=True),
)
ZEROS = 0.01
"""Smallest change of the share of weights that are exactly zero."""
SPREAD = 0.1
"""Smallest change of the standard deviation over layers of ln(‖Δw‖/‖w‖)."""
FAST = 10.0
"""Multiple of the winner's rate from which on a rate is called high."""
EQUILIBRIUM = 1 / 3
"""Longest timescale, in training lengths, at which the second half of training is at equilibrium.

Norms approach it as exp(−2ηλt) (2305.17212, section 3): after half a training e⁻³ of the way is left.
"""


def claims_of(evidence: Evidence) -> tuple[Claim, ...]:
    """Every claim, judged beside the others."""
    findings = {key: find(evidence) for key, find in CLAIMS.items()}
    judged = verdicts({key: finding.test for key, finding in findings.items()})
    return tuple(finding.judged(key, judged[key]) for key, finding in findings.items())


def complexity(evidence: Evidence) -> Finding:
    """Lower complexity: the margin-normalised norm falls, which no mere scaling of the weights moves."""
    quantity = Quantity("log_complexity", "share", SHARE)
    return falling(evidence, quantity, ("norm", "spectral_norm", "stable_rank"))


def bell(evidence: Evidence) -> Finding:
    """L2 makes a bell: the weights' distribution comes nearer to a normal one in shape, and no more become exactly zero."""
    more_zeros = p_values(evidence.at_reference("zeros"), ZEROS).opposite
    quantity = Quantity("nonnormality", "share", SHARE, relative=True)
    return falling(evidence, quantity, ("kurtosis", "std", "zeros", "tiny"), against=more_zeros)


def zeros(evidence: Evidence) -> Finding:
    """L1 makes exact zeros: their share rises along its path, and by more than decay at λ* makes it rise."""
    along_l1, along_decay = evidence.along(L1, "zeros"), evidence.along(DECAY, "zeros")
    at_reference = along_decay[evidence.axes.reference]
    rises = [mean - off for mean, off in zip(_path_means(along_l1), along_l1[0.0], strict=True)]
    decay_rises = [after - before for before, after in zip(along_decay[0.0], at_reference, strict=True)]
    change = effect([rise - other for rise, other in zip(rises, decay_rises, strict=True)])
    numbers = {
        "zeros_l1": finite_mean(along_l1[max(along_l1)]),
        "largest_l1": max(along_l1),
        "zeros_off": finite_mean(along_l1[0.0]),
        "zeros_decay": finite_mean(at_reference),
        "diverged": evidence.diverged(L1),
        "smallest": ZEROS,
    }
    curves = {
        "zeros_l1": curve(along_l1),
        "zeros_decay": curve(along_decay),
        "val_loss_l1": curve(evidence.along(L1, "val_loss")),
    }
    test = agreeing(p_values(change, ZEROS, RISES), p_values(evidence.trend(L1, "zeros"), 0.0, RISES))
    return Finding(test, claim_with(evidence, change, "weights", numbers, curves), why_open(evidence, change))


def collinearity(evidence: Evidence) -> Finding:
    """Less collinearity: units' weights or activations correlate less, or the weights' condition number falls.

    The effect is that of the one of the three that says most.
    """
    names = [quantity.name for quantity in COLLINEARITY]
    varying = [quantity for quantity in COLLINEARITY if _varies(quantity.change(evidence))]
    findings = [falling(evidence, quantity, names) for quantity in varying]
    if not findings:
        return Finding(UNTESTED, claim_with(evidence, effect([]), "correlation", {}, {}), why_open(evidence))
    clearest = min(findings, key=lambda finding: (finding.test.directed, finding.test.none))
    return replace(clearest, test=any_of(*(finding.test for finding in findings)))


def gap(evidence: Evidence) -> Finding:
    """A smaller gap: validation minus training loss falls, and the gap in the metric does not rise.

    >>> from wdsearch.analysis.design import Axes
    >>> from wdsearch.analysis.outcomes import Outcome
    >>> gaps, noise = {0.0: 0.5, 0.05: 0.4, 0.1: 0.3}, [0.01, -0.02, 0.0, 0.01, -0.01]
    >>> metrics = {(x, s): {"gap": gaps[x] * (1 + noise[s]), "val_loss": 1.0} for x in gaps for s in range(5)}
    >>> outcomes = [Outcome(DECAY, s, 0.01, {DECAY: x}, {}, "finished", of, {}) for (x, s), of in metrics.items()]
    >>> finding = gap(Evidence(tuple(outcomes), Axes(DECAY, reference=0.1, l1=L1, dropout="", rate=0.01)))
    >>> round(finding.claim.effect, 2), finding.test.supported < 0.02
    (-0.2, True)
    """
    in_metric = [name for name in evidence.metrics if name.startswith("gap_")][:1]
    wider = min((p_values(evidence.at_reference(name), 0.0).opposite for name in in_metric), default=1.0)
    quantity = Quantity("gap", "loss", loss_that_matters(evidence))
    return falling(evidence, quantity, (*in_metric, "train_loss", "val_loss"), against=wider)


def optimum(evidence: Evidence) -> Finding:
    """Validation loss gets better up to a point, and worse beyond: the best λ beats 0, and the largest λ loses to it.

    The best λ > 0 is chosen by one half of the seeds, and judged by the other.
    """
    losses, smallest = evidence.along(DECAY, "val_loss"), loss_that_matters(evidence)
    best = chosen_by(losses, [strength for strength in losses if strength > 0], evidence.selecting) or math.nan
    largest, seeds = max(losses), evidence.reporting
    better = differences(losses, 0.0, best, seeds) if best > 0 else effect([])
    worse = differences(losses, best, largest, seeds) if best < largest else effect([])
    tests = (p_values(better, smallest), p_values(worse, smallest, RISES))
    tables = {name: evidence.along(DECAY, name) for name in ("val_loss", "train_loss")}
    numbers = {"best": best, "beyond": worse.mean, "beyond_low": worse.low, "beyond_high": worse.high}
    numbers |= {"smallest": smallest, "diverged": evidence.diverged(DECAY)} | off_and_on(evidence, tables)
    claim = claim_with(evidence, better, "loss", numbers, {name: curve(table) for name, table in tables.items()})
    reason = why_open(evidence, better, worse, seeds=2 * FEWEST)
    if math.isnan(best) or best == largest:
        reason = "edge" if best == largest else "diverged"
    return Finding(all_of(*tests), claim, reason, "plateau" if tests[0].supported < tests[0].none else "none")


def updates(evidence: Evidence) -> Finding:
    """Controlled update sizes: relative updates ‖Δw‖/‖w‖ of normalised layers are more alike (balanced rotation, 2305.17212).

    Only where λ* brings them to equilibrium within the first half of training, of which alone the theory speaks.
    """
    quantity = Quantity("update_spread", "log", SPREAD)
    finding = falling(evidence, quantity, ("relative_update", "rotation", "predicted_rotation"), trend=False)
    timescale = finite_mean(evidence.along(DECAY, "timescale")[evidence.axes.reference])
    if quantity.change(evidence).count and not timescale <= EQUILIBRIUM:
        return replace(finding, test=UNTESTED, open_reason="equilibrium")
    return finding


def gradients(evidence: Evidence) -> Finding:
    """No exploding gradients at ten and more times the rate: the largest norm after the first epoch is smaller, or fewer
    trainings fail (diverge, or end with a dead network), which are counted apart.
    """
    failed, reference = evidence.by_rate(FAILED), evidence.axes.reference
    norms = _of_the_living(evidence.by_rate("gradient_norm_late"), failed)
    rates = [lr for decay, lr in norms if decay > 0 and lr >= 0.999 * FAST * evidence.axes.rate]
    pairs = [(norms[0.0, lr], norms[reference, lr]) for lr in rates]
    sizes = effect([_mean_log_ratio(pairs, seed) for seed in range(evidence.seeds)])
    failures = effect([_added_failures(failed, reference, rates, seed) for seed in range(evidence.seeds)])
    runs = {side: _failures(failed, decay, rates) for side, decay in (("off", 0.0), ("on", reference))}
    counted = (
        [replace(failures, error=0.0)] if any(runs.values()) else []
    )  # shares of few: the sign test knows no sizes
    tests = [p_values(sizes, SHARE)] * (sizes.count > 0) + [replace(p_values(one, 0.0), none=1.0) for one in counted]
    shown, unit = (failures, "runs") if counted and sizes.count < FEWEST else (as_share(sizes), "share")
    curves = {
        f"{name}_{side}": curve(_row(table, 0, decay))
        for name, table in (("gradient_norm_late", norms), ("failed", failed))
        for side, decay in (("off", 0.0), ("on", reference))
    }
    numbers = {f"failed_{side}": count for side, count in runs.items()} if rates else {}
    numbers |= {"runs": float(len(rates) * evidence.seeds), "smallest": SHARE}
    claim = claim_with(evidence, shown, unit, numbers, curves)
    return Finding(any_of(*tests), claim, "diverged" if any(runs.values()) else why_open(evidence, sizes))


def dropout(evidence: Evidence) -> Finding:
    """Better with dropout than either alone; the best of both and the best of one are chosen by one half of the seeds, and
    judged by the other.
    """
    losses = evidence.beside_dropout("val_loss")
    if not losses:
        return Finding(UNTESTED, claim_with(evidence, effect([]), "loss", {}, {}), "no_dropout")
    both = chosen_by(losses, [point for point in losses if min(point) > 0], evidence.selecting)
    alone = chosen_by(losses, [point for point in losses if min(point) == 0], evidence.selecting)
    curves = {f"val_loss_{rate:g}": curve(_row(losses, 1, rate)) for rate in sorted({rate for _, rate in losses})}
    numbers = {"diverged": evidence.diverged(DROPOUT)}
    if both is None or alone is None:
        return Finding(UNTESTED, claim_with(evidence, effect([]), "loss", numbers, curves), "diverged")
    change = differences(losses, alone, both, evidence.reporting)
    numbers |= {f"best_{name}": value for name, value in zip(("decay", "dropout"), both, strict=True)}
    numbers |= {"smallest": LOSS_SHARE * abs(finite_mean(losses[alone]))}
    for name, point in (("both", both), ("alone", alone)):
        numbers[name] = finite_mean(losses[point][seed] for seed in evidence.reporting)
    claim = claim_with(evidence, change, "loss", numbers, curves)
    return Finding(p_values(change, numbers["smallest"]), claim, why_open(evidence, change, seeds=2 * FEWEST))


# -- shared parts ---------------------------------------------------------------------------------------------------


def _varies(change: Effect) -> bool:
    """True if a quantity was measured and can vary: the condition number of a single row cannot."""
    return change.count > 0 and not change.low == change.high == 0.0


def _path_means(path: Mapping[float, Sequence[float]]) -> list[float]:
    """Mean along a path for each seed, 0 left out."""
    rows = [values for strength, values in path.items() if strength > 0]
    return [finite_mean(row[seed] for row in rows) for seed in range(len(path[0.0]))]


def _of_the_living(norms: Table[tuple[float, ...]], failed: Table[tuple[float, ...]]) -> Table[tuple[float, ...]]:
    """The norms of trainings that did not fail; NaN for others."""
    return {
        point: [math.nan if of_seed else norm for norm, of_seed in zip(values, failed[point], strict=True)]
        for point, values in norms.items()
    }


def _mean_log_ratio(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int) -> float:
    """Mean log ratio of a seed's values with decay to those without, where neither training failed; NaN if one did everywhere."""
    return finite_mean(logarithm(after[seed]) - logarithm(before[seed]) for before, after in pairs)


def _failures(failed: Table[tuple[float, ...]], decay: float, rates: Sequence[float]) -> float:
    """Number of trainings that failed with a decay, over some rates and all seeds."""
    return sum(sum(failed[decay, lr]) for lr in rates)


def _added_failures(failed: Table[tuple[float, ...]], reference: float, rates: Sequence[float], seed: int) -> float:
    """Share of a seed's trainings that fail with λ*, minus that without decay; NaN without rates."""
    return finite_mean(failed[reference, lr][seed] - failed[0.0, lr][seed] for lr in rates)


def _row(table: Table[tuple[float, ...]], coordinate: int, value: float) -> dict[float, Sequence[float]]:
    """The points of a table of two coordinates where one has a value, by the other."""
    return {point[1 - coordinate]: values for point, values in table.items() if point[coordinate] == value}


CLAIMS: dict[str, Callable[[Evidence], Finding]] = {
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
