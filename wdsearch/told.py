"""What a person reads of an explanation in the terminal: each claim in a sentence, its effect, the verdict, and why."""

import math
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from wdsearch.answer import effect_and_interval
from wdsearch.explanation import Claim, Explanation
from wdsearch.texts import Texts

STYLES = {"supported": "green", "contradicted": "red", "undetermined": "yellow"}
WORDS = Texts("en")


def explanation_table(found: Explanation) -> Table:
    """A line for each claim."""
    title = f"{found.study}: what {found.decay} did, {found.seeds} fresh seeds × {found.epochs} epochs"
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("claim")
    table.add_column("effect of λ, 95 % interval", justify="right", no_wrap=True)
    table.add_column("here", min_width=18)
    for claim in found.claims:
        verdict = f"[bold {STYLES[claim.verdict]}]{claim.verdict}[/]"
        reason = f": {WORDS(f'reason.{claim.reason}')}" if claim.reason else ""
        table.add_row(escape(WORDS(f"claim.{claim.key}")), _numbers(claim), verdict + reason)
    return table


def explained(found: Explanation) -> list[Any]:
    """What `wdsearch explain` prints: the table, what was compared, and the next command."""
    known = _evidence(found, "optimum")
    reference = known.get("reference", math.nan)
    lines: list[Any] = [
        explanation_table(found),
        f"from λ = 0 to {found.decay} {reference:.4g}, all else as in the best trial",
    ]
    if "best" in known:
        lines[-1] += f"; validation loss is best about {known['best']:.4g}"
    diverged = sum(outcome.end == "diverged" for outcome in found.outcomes)
    lines += [f"{diverged} of {len(found.outcomes)} outcomes diverged"] if diverged else []
    return [
        *lines,
        "",
        f"next            [bold]wdsearch report {found.study}[/bold]  (figures and all numbers in one page)",
    ]


def _evidence(found: Explanation, key: str) -> Mapping[str, float]:
    return next((claim.evidence for claim in found.claims if claim.key == key), {})


def _numbers(claim: Claim) -> str:
    """The effect with its unit, and its interval."""
    return "\n".join(effect_and_interval(claim, WORDS)) if math.isfinite(claim.effect) else "–"
