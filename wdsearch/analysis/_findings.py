"""Findings on claims: the effects that they are tested by, with curves and numbers to show; the verdict comes later."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wdsearch.analysis.design import DECAY, L1
from wdsearch.analysis.effects import FEWEST, Effect
from wdsearch.analysis.evidence import Evidence, Table, curve, finite_mean
from wdsearch.analysis.outcomes import CONTRADICTED, NO_EFFECT, SUPPORTED, UNDETERMINED, Claim, Curve
from wdsearch.analysis.verdicts import PValues, agreeing, is_mixed, p_values, unless

SHARE = 0.05
"""Smallest relative change of a norm, a shape or a condition number that matters."""
LOSS_SHARE = 0.01
"""Smallest change of a loss or a gap, as a share of the validation loss without decay."""


@dataclass(frozen=True)
class Finding:
    """A claim before its verdict. `open_reason` is why it stays open if it does, `none_reason` what no effect means."""

    test: PValues
    claim: Claim
    open_reason: str
    none_reason: str = "none"

    def judged(self, key: str, verdict: str) -> Claim:
        """The claim with its verdict, and why it is not supported."""
        still_open = "mixed" if is_mixed(self.test) else self.open_reason
        reasons = {SUPPORTED: "", CONTRADICTED: "opposite", NO_EFFECT: self.none_reason, UNDETERMINED: still_open}
        return replace(self.claim, key=key, verdict=verdict, reason=reasons[verdict])


@dataclass(frozen=True)
class Quantity:
    """A quantity that is claimed to fall with λ: its name, the unit and the least size of an effect that matters.

    A `relative` change is one of logarithms. A `share` is shown as a share of the value without decay; the quantity is then
    relative, or a logarithm itself.
    """

    name: str
    unit: str
    smallest: float
    relative: bool = False

    def change(self, evidence: Evidence) -> Effect:
        """Change from λ = 0 to λ*."""
        return evidence.at_reference(self.name, self.relative)

    def shown(self, change: Effect) -> Effect:
        """The change in its unit."""
        return as_share(change) if self.unit == "share" else change


def falling(
    evidence: Evidence, quantity: Quantity, beside: Sequence[str] = (), *, trend: bool = True, against: float = 1.0
) -> Finding:
    """The finding on a quantity that falls from 0 to λ* and, if it is to be a `trend`, along all λ.

    It is shown with its curve and those of others `beside` it. `against` is the p-value of another effect against the claim.
    """
    change, acts = quantity.change(evidence), acts_at_all(evidence)
    test = p_values(change, quantity.smallest)
    if trend:
        test = agreeing(test, p_values(evidence.trend(DECAY, quantity.name), 0.0))
    if not acts:
        test = replace(test, none=1.0)
    tables = {name: evidence.along(DECAY, name) for name in (quantity.name, *beside)}
    numbers = {"diverged": evidence.diverged(DECAY), "smallest": quantity.smallest} | off_and_on(evidence, tables)
    curves = {name: curve(table) for name, table in tables.items()}
    claim = claim_with(evidence, quantity.shown(change), quantity.unit, numbers, curves)
    return Finding(unless(test, against), claim, why_open(evidence, change, acts=acts))


def claim_with(
    evidence: Evidence, change: Effect, unit: str, numbers: Mapping[str, float], curves: Mapping[str, Curve]
) -> Claim:
    """A claim that is not judged yet, with all its numbers that are finite."""
    all_numbers = {"reference": evidence.axes.reference, "seeds": float(evidence.seeds)} | dict(numbers)
    finite = {name: value for name, value in all_numbers.items() if math.isfinite(value)}
    drawn = {name: points for name, points in curves.items() if points.x}
    return Claim("", UNDETERMINED, change.mean, change.low, change.high, unit, finite, drawn)


def off_and_on(evidence: Evidence, tables: Mapping[str, Table[float]]) -> dict[str, float]:
    """Means of quantities without decay and with λ*."""
    sides = {"off": 0.0, "on": evidence.axes.reference}
    return {f"{name}_{side}": finite_mean(table[x]) for name, table in tables.items() for side, x in sides.items()}


def as_share(change: Effect) -> Effect:
    """A change of logarithms as a share of the first value: −0.43 is 43 % less."""
    return replace(change, mean=math.expm1(change.mean), low=math.expm1(change.low), high=math.expm1(change.high))


def loss_that_matters(evidence: Evidence) -> float:
    """Smallest change of a loss that matters: a share of that without decay or, where all of those diverged, with λ*."""
    losses = evidence.along(DECAY, "val_loss")
    without = finite_mean(losses[0.0])
    return LOSS_SHARE * abs(without if math.isfinite(without) else finite_mean(losses[evidence.axes.reference]))


def acts_at_all(evidence: Evidence) -> bool:
    """True if λ* changes the weights' norm by a size that matters, or if that was not measured."""
    change = evidence.at_reference("norm", relative=True)
    return not change.count or abs(change.mean) >= SHARE


def why_open(evidence: Evidence, *effects: Effect, acts: bool = True, seeds: int = FEWEST) -> str:
    """The reason why a claim stays undetermined; it needs so many `seeds`."""
    if evidence.seeds < seeds:
        return "seeds" if seeds == FEWEST else "halves"
    failed = evidence.diverged(DECAY, L1) > 0  # a metric is then infinite, a measure is lost
    if any(effect.worse or effect.better or (effect.lost and failed) for effect in effects):
        return "diverged"
    if all(effect.count == 0 for effect in effects):
        return "not_measured"
    return "unclear" if acts else "inert"
