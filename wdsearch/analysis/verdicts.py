"""Verdicts on claims, from the p-values of their effects, held together over all claims."""

from collections.abc import Mapping
from dataclasses import dataclass

from wdsearch.analysis.effects import Effect
from wdsearch.analysis.outcomes import CONTRADICTED, NO_EFFECT, SUPPORTED, UNDETERMINED

LEVEL = 0.05
"""Probability that any of the claims gets a false direction, and that any is falsely said to have no effect; each by itself."""

FALLS, RISES = -1, 1


@dataclass(frozen=True)
class PValues:
    """One-sided p-values of a claim: for an effect as claimed, for the opposite one, and for none of a size that matters."""

    supported: float
    opposite: float
    none: float = 1.0

    @property
    def directed(self) -> float:
        """Two-sided p-value for an effect in either direction."""
        return min(1.0, 2.0 * min(self.supported, self.opposite))


UNTESTED = PValues(1.0, 1.0)


def p_values(effect: Effect, smallest: float, claimed: int = FALLS) -> PValues:
    """The test of a claim that a quantity falls (`claimed` −1) or rises (1), by `smallest` or more, the least that matters.

    An effect that is surely not 0, but smaller than that, has no direction here.

    >>> from wdsearch.analysis.effects import effect
    >>> test = p_values(effect([-0.3, -0.35, -0.25, -0.3, -0.31]), smallest=0.1)
    >>> test.supported < 0.001, test.opposite > 0.9, test.none > 0.9
    (True, True, True)
    """
    too_small = effect.count > 0 and abs(effect.mean) < smallest
    directed = (1.0, 1.0) if too_small else (effect.p_value(claimed), effect.p_value(-claimed))
    return PValues(*directed, effect.p_smaller(smallest))


def agreeing(change: PValues, trend: PValues) -> PValues:
    """The test of one effect seen in two ways, both of which must show it; its size is that of the first.

    >>> agreeing(PValues(0.01, 0.99, none=0.6), PValues(0.03, 0.97))
    PValues(supported=0.03, opposite=0.99, none=0.6)
    """
    return PValues(max(change.supported, trend.supported), max(change.opposite, trend.opposite), change.none)


def all_of(*tests: PValues) -> PValues:
    """The test of a claim of several effects: all must be as claimed (an intersection–union test), one against it is enough.

    >>> all_of(PValues(0.01, 0.99), PValues(0.03, 0.97, none=0.2))
    PValues(supported=0.03, opposite=1.0, none=0.4)
    """
    if not tests:
        return UNTESTED
    opposite, none = (min(getattr(test, name) for test in tests) for name in ("opposite", "none"))
    return PValues(max(test.supported for test in tests), min(1.0, len(tests) * opposite), min(1.0, len(tests) * none))


def any_of(*tests: PValues) -> PValues:
    """The test of a claim that one of several effects supports or contradicts (Bonferroni's correction); none, if all are none.

    >>> any_of(PValues(0.01, 0.99, none=0.9), PValues(0.5, 0.5, none=0.01))
    PValues(supported=0.02, opposite=1.0, none=0.9)
    """
    if not tests:
        return UNTESTED
    supported, opposite = (min(getattr(test, name) for test in tests) for name in ("supported", "opposite"))
    return PValues(min(1.0, len(tests) * supported), min(1.0, len(tests) * opposite), max(test.none for test in tests))


def unless(test: PValues, against: float) -> PValues:
    """The test of a claim that another effect contradicts, of which this is the p-value (Bonferroni's correction).

    >>> unless(PValues(0.5, 0.5, none=0.01), against=0.001)
    PValues(supported=0.5, opposite=0.002, none=1.0)
    """
    if against >= 1.0:
        return test
    opposite = min(1.0, 2.0 * min(test.opposite, against))
    return PValues(test.supported, opposite, 1.0 if 2.0 * against <= LEVEL else test.none)


def verdicts(tests: Mapping[str, PValues]) -> dict[str, str]:
    """The verdict on each claim, so that in a world without any effect a false direction is found in 5 % of explanations at most.

    Holm's procedure (1979) over the two-sided p-values of all claims. For "no effect" each claim is tested at 5 % over their
    number. A claim of which one quantity goes up and another down is `mixed`, which is a reason to leave it open.

    >>> verdicts({"gap": PValues(0.001, 0.999), "bell": PValues(0.4, 0.6, none=0.002), "zeros": PValues(0.01, 0.99)})
    {'gap': 'supported', 'bell': 'no_effect', 'zeros': 'supported'}
    """
    found = {key: NO_EFFECT if test.none <= LEVEL / len(tests) else UNDETERMINED for key, test in tests.items()}
    ranked = sorted(tests, key=lambda key: tests[key].directed)
    for rank, key in enumerate(ranked):
        level = LEVEL / (len(tests) - rank)
        if tests[key].directed > level:
            break
        found[key] = _direction(tests[key], level)
    return found


def _direction(test: PValues, level: float) -> str:
    if 2.0 * max(test.supported, test.opposite) <= level:
        return UNDETERMINED
    return SUPPORTED if test.supported < test.opposite else CONTRADICTED


def is_mixed(test: PValues) -> bool:
    """True if of a claim's quantities one surely goes with it and another against it.

    >>> is_mixed(PValues(0.001, 0.002)), is_mixed(PValues(0.001, 0.999))
    (True, False)
    """
    return 2.0 * max(test.supported, test.opposite) <= LEVEL
