"""What a person reads in the terminal of an explanation, claim by claim, and of a family of sweeps."""

import math
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from wdsearch.analysis.outcomes import Claim, Explanation
from wdsearch.analysis.trend import Trend
from wdsearch.messages import shown_number
from wdsearch.report.sentences import effect_and_interval
from wdsearch.report.study_charts import strength_text
from wdsearch.report.sweep_charts import date, range_text, verdict_sentences
from wdsearch.report.texts import Texts
from wdsearch.trial.result import DIVERGED

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
    diverged = sum(outcome.end == DIVERGED for outcome in found.outcomes)
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


def trend_lines(found: Trend) -> list[Any]:
    """What `wdsearch trend` prints: a line for each sweep, and whether λ* moved."""
    table = Table(title=f"{found.family}: {len(found.sweeps)} sweeps", title_justify="left", box=SIMPLE, pad_edge=False)
    heads = ["due (UTC)", "trials", "lr", f"λ*: {found.key}", "where it may lie", "gap", found.goal, "baseline"]
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right", no_wrap=head in heads[:2])
    for sweep in found.sweeps:
        strength = "–" if sweep.strength is None else strength_text(sweep.key, sweep.strength, WORDS)
        strength += "" if sweep.key == found.key else f" ({sweep.key})"
        numbers = [
            "–" if one is None else shown_number(one) for one in (sweep.lr, sweep.gap, sweep.value, sweep.baseline)
        ]
        where = range_text(sweep.key, sweep.range, WORDS)
        done = str(sweep.spent) if sweep.finished else f"{sweep.spent}/{sweep.budget}"
        table.add_row(date(sweep), done, numbers[0], strength, where, *numbers[1:])
    colors = {"moved": "red", "steady": "green", "undetermined": "yellow"}
    first, *rest = (text.replace("**", "") for text in verdict_sentences(found, WORDS))
    last = found.sweeps[-1].study
    return [
        table,
        f"[{colors[found.verdict]}]{escape(first)}[/]",
        *map(escape, rest),
        "",
        f"next            [bold]wdsearch report {last}[/bold]  (with a figure over the sweeps)",
    ]
