"""From what effects show to a verdict on a claim."""

from collections.abc import Iterable, Sequence

from wdsearch.analysis.bootstrap import AGAINST, FEWEST, FOR, NONE, Effect
from wdsearch.analysis.design import DECAY, L1
from wdsearch.analysis.evidence import Evidence
from wdsearch.analysis.outcomes import CONTRADICTED, SUPPORTED, UNDETERMINED

SHARE = 0.05
"""Smallest relative change of a norm, a spread or a condition number that matters."""
Verdict = tuple[str, str]
"""The verdict, and why it is not `supported`."""


def verdict_of(states: Sequence[str], evidence: Evidence, *effects: Effect, acts: bool | None = None) -> Verdict:
    """Supported by any effect as claimed, contradicted by any against, or by none of any size that matters if λ `acts`."""
    if FOR in states:
        return (UNDETERMINED, "mixed") if AGAINST in states else (SUPPORTED, "")
    if AGAINST in states:
        return CONTRADICTED, "opposite"
    acts = acts_at_all(evidence) if acts is None else acts
    if states and set(states) == {NONE} and acts:
        return CONTRADICTED, "none"
    return UNDETERMINED, _why_open(states, evidence, effects, acts)


def all_of(states: Sequence[str], evidence: Evidence, found: Effect) -> Verdict:
    """Supported if every effect is as claimed, contradicted if one is surely not."""
    if set(states) == {FOR}:
        return SUPPORTED, ""
    if AGAINST in states:
        return CONTRADICTED, "opposite"
    return (CONTRADICTED, "none") if NONE in states else (UNDETERMINED, _why_open(states, evidence, [found], True))


def _why_open(states: Sequence[str], evidence: Evidence, effects: Iterable[Effect], acts: bool) -> str:
    """Why nothing can be said."""
    if evidence.seeds < FEWEST:
        return "seeds"
    unmeasured = evidence.diverged(DECAY, L1) > 0  # a metric is then infinite, a measure is lost
    if any(found.worse or found.better or (found.lost and unmeasured) for found in effects):
        return "diverged"
    if not states or all(found.count == 0 for found in effects):
        return "not_measured"
    return "unclear" if acts else "inert"


def acts_at_all(evidence: Evidence) -> bool:
    """Whether λ* changes the weights' norm by a size that matters; if that was not measured, it does."""
    found = evidence.at_reference("norm", relative=True)
    return not found.count or abs(found.mean) >= SHARE


def varying(found: Effect, smallest: float) -> list[str]:
    """The state of a falling effect; none if the quantity cannot vary, as the stable rank of a single row."""
    return [] if found.count and found.low == found.high == 0.0 else [found.stands(smallest)] if found.count else []
