"""Verdicts on claims, from the states of their effects."""

from collections.abc import Iterable, Sequence

from wdsearch.analysis.bootstrap import AGAINST, FEWEST, FOR, NONE, Effect
from wdsearch.analysis.design import DECAY, L1
from wdsearch.analysis.evidence import Evidence
from wdsearch.analysis.outcomes import CONTRADICTED, SUPPORTED, UNDETERMINED

SHARE = 0.05
"""Smallest relative change of a norm, a spread or a condition number that matters."""
Verdict = tuple[str, str]
"""The verdict, and the reason why it is not `supported`."""


def verdict_of(states: Sequence[str], evidence: Evidence, *effects: Effect, acts: bool | None = None) -> Verdict:
    """Supported by any effect as claimed, contradicted by any against, or by none of any size that matters if λ `acts`.

    >>> from wdsearch.analysis.design import Axes
    >>> evidence = Evidence((), Axes(DECAY, reference=0.1, l1=L1, dropout="", rate=0.01))
    >>> verdict_of(["for", "unclear"], evidence), verdict_of(["against", "none"], evidence)
    (('supported', ''), ('contradicted', 'opposite'))
    """
    if FOR in states:
        return (UNDETERMINED, "mixed") if AGAINST in states else (SUPPORTED, "")
    if AGAINST in states:
        return CONTRADICTED, "opposite"
    acts = acts_at_all(evidence) if acts is None else acts
    if states and set(states) == {NONE} and acts:
        return CONTRADICTED, "none"
    return UNDETERMINED, _why_open(states, evidence, effects, acts)


def all_of(states: Sequence[str], evidence: Evidence, effect: Effect) -> Verdict:
    """Supported if every effect is as claimed, contradicted if one is surely not.

    >>> from wdsearch.analysis.design import Axes
    >>> evidence = Evidence((), Axes(DECAY, reference=0.1, l1=L1, dropout="", rate=0.01))
    >>> all_of(["for", "none"], evidence, Effect(-0.3, -0.4, -0.2, count=5))
    ('contradicted', 'none')
    """
    if set(states) == {FOR}:
        return SUPPORTED, ""
    if AGAINST in states:
        return CONTRADICTED, "opposite"
    return (CONTRADICTED, "none") if NONE in states else (UNDETERMINED, _why_open(states, evidence, [effect], True))


def _why_open(states: Sequence[str], evidence: Evidence, effects: Iterable[Effect], acts: bool) -> str:
    """The reason why a claim stays undetermined."""
    if evidence.seeds < FEWEST:
        return "seeds"
    unmeasured = evidence.diverged(DECAY, L1) > 0  # a metric is then infinite, a measure is lost
    if any(effect.worse or effect.better or (effect.lost and unmeasured) for effect in effects):
        return "diverged"
    if not states or all(effect.count == 0 for effect in effects):
        return "not_measured"
    return "unclear" if acts else "inert"


def acts_at_all(evidence: Evidence) -> bool:
    """True if λ* changes the weights' norm by a size that matters, or if that was not measured."""
    change = evidence.at_reference("norm", relative=True)
    return not change.count or abs(change.mean) >= SHARE


def varying(effect: Effect, smallest: float) -> list[str]:
    """The state of a falling effect; none if it was not measured or cannot vary, as the stable rank of a single row.

    >>> varying(Effect(-0.3, -0.4, -0.2, count=5), smallest=0.1), varying(Effect(0.0, 0.0, 0.0, count=5), smallest=0.1)
    (['for'], [])
    """
    cannot_vary = effect.low == effect.high == 0.0
    return [] if not effect.count or cannot_vary else [effect.stands(smallest)]
