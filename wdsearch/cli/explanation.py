"""Formats an explanation, claim by claim, and a family of sweeps for the terminal."""

import math
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from wdsearch.analysis.outcomes import Claim, Explanation
from wdsearch.analysis.trend import Trend
from wdsearch.messages import shown_number
from wdsearch.report.sentences import effect_and_interval, reason
from wdsearch.report.sweep_charts import best_text, date, range_text, verdict_sentences
from wdsearch.report.texts import Texts
from wdsearch.trial.result import DIVERGED

STYLES = {"supported": "green", "contradicted": "red", "no_effect": "cyan", "undetermined": "yellow"}
WORDS = Texts("en")


def explanation_table(explanation: Explanation) -> Table:
    """A table with a row for each claim.

    >>> claim = Claim("gap", "supported", -0.11, -0.14, -0.09, "loss", {}, {})
    >>> explanation_table(Explanation("digits", 3, 40, 5, "weight_decay", (), (claim,))).row_count
    1
    """
    title = f"{explanation.study}: what {explanation.decay} did, {explanation.seeds} fresh seeds × {explanation.epochs} epochs"
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("claim")
    table.add_column("effect of λ, 95 % interval", justify="right", no_wrap=True)
    table.add_column("here", min_width=18)
    for claim in explanation.claims:
        verdict = f"[bold {STYLES[claim.verdict]}]{claim.verdict.replace('_', ' ')}[/]"
        why = f": {escape(reason(claim, WORDS))}" if claim.reason else ""
        table.add_row(escape(WORDS(f"claim.{claim.key}")), _numbers(claim), verdict + why)
    return table


def explained(explanation: Explanation) -> list[Any]:
    """Output of `wdsearch explain`: the table, the comparison it is of, and the next command.

    >>> lines = explained(Explanation("digits", 3, 40, 5, "weight_decay", outcomes=(), claims=()))
    >>> lines[-1]
    'next            [bold]wdsearch report digits[/bold]  (figures and all numbers in one page)'
    """
    numbers = _evidence(explanation, "optimum")
    reference = numbers.get("reference", math.nan)
    lines: list[Any] = [
        explanation_table(explanation),
        f"from λ = 0 to {explanation.decay} {reference:.4g}, all else as in the best trial",
    ]
    if "best" in numbers:
        lines[-1] += f"; validation loss is best about {numbers['best']:.4g}"
    diverged = sum(outcome.end == DIVERGED for outcome in explanation.outcomes)
    lines += [f"{diverged} of {len(explanation.outcomes)} outcomes diverged"] if diverged else []
    return [
        *lines,
        "",
        f"next            [bold]wdsearch report {explanation.study}[/bold]  (figures and all numbers in one page)",
    ]


def _evidence(explanation: Explanation, key: str) -> Mapping[str, float]:
    return next((claim.evidence for claim in explanation.claims if claim.key == key), {})


def _numbers(claim: Claim) -> str:
    """The effect with its unit, and its interval."""
    return "\n".join(effect_and_interval(claim, WORDS)) if math.isfinite(claim.effect) else "–"


def trend_lines(trend: Trend) -> list[Any]:
    """Output of `wdsearch trend`: a row for each sweep, and whether λ* moved."""
    table = Table(title=f"{trend.family}: {len(trend.sweeps)} sweeps", title_justify="left", box=SIMPLE, pad_edge=False)
    heads = ["due (UTC)", "trials", "lr", f"λ*: {trend.key}", "where it may lie", "gap", trend.goal, "baseline"]
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right", no_wrap=head in heads[:2])
    for sweep in trend.sweeps:
        strength = best_text(sweep, WORDS)
        strength += "" if sweep.key == trend.key else f" ({sweep.key})"
        numbers = [
            "–" if number is None else shown_number(number)
            for number in (sweep.lr, sweep.gap, sweep.value, sweep.baseline)
        ]
        where = range_text(sweep, WORDS)
        progress = str(sweep.spent) if sweep.finished else f"{sweep.spent}/{sweep.budget}"
        table.add_row(date(sweep), progress, numbers[0], strength, where, *numbers[1:])
    colors = {"moved": "red", "steady": "green", "undetermined": "yellow"}
    first, *rest = (text.replace("**", "") for text in verdict_sentences(trend, WORDS))
    latest = trend.sweeps[-1].study
    return [
        table,
        f"[{colors[trend.verdict]}]{escape(first)}[/]",
        *map(escape, rest),
        "",
        f"next            [bold]wdsearch report {latest}[/bold]  (with a figure over the sweeps)",
    ]
