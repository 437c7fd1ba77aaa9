"""What a person reads of an explanation in the terminal: each claim in a sentence, its effect, the verdict, and why."""

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from wdsearch.explanation import Claim, Explanation

SENTENCES = {
    "complexity": "a simpler network: smaller norm, lower stable rank",
    "bell": "L2: the weights' bell gets narrower",
    "zeros": "L1: weights become exactly zero",
    "collinearity": "less collinearity: units are less alike",
    "gap": "a smaller gap between training and validation loss",
    "optimum": "a better validation loss up to a point, worse beyond",
    "updates": "controlled updates: layers move at more equal relative sizes",
    "gradients": "no exploding gradients at 10 and 30 times the rate",
    "dropout": "better together with dropout than either alone",
}
UNITS = {
    "share": "{:+.1%}",
    "weights": "{:+.1%} of the weights",
    "runs": "{:+.1%} of runs diverge",
    "correlation": "{:+.3f} in correlation",
    "loss": "{:+.4f} in loss",
    "log": "{:+.2f} in ln(‖Δw‖/‖w‖)",
}
"""How an effect is written."""
STYLES = {"supported": "green", "contradicted": "red", "undetermined": "yellow"}
REASONS = {
    "opposite": "it is the other way round",
    "none": "no effect of a size that matters",
    "mixed": "one measure falls, another rises",
    "unclear": "not clear from these seeds",
    "inert": "this λ changes the weights too little",
    "diverged": "trainings diverged",
    "edge": "no λ of the grid is too large",
    "seeds": "needs five seeds",
    "not_measured": "not measurable in this network",
    "no_dropout": "the network has no layer that drops",
    "": "",
}


def explanation_table(found: Explanation) -> Table:
    """A line for each claim."""
    title = f"{found.study}: what {found.decay} did, {found.seeds} fresh seeds × {found.epochs} epochs"
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("claim")
    table.add_column("effect of λ, 95 % interval", justify="right", no_wrap=True)
    table.add_column("here", min_width=18)
    for claim in found.claims:
        verdict = f"[bold {STYLES[claim.verdict]}]{claim.verdict}[/]"
        reason = REASONS[claim.reason]
        table.add_row(SENTENCES[claim.key], _numbers(claim), verdict + (f": {reason}" if reason else ""))
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
    form = UNITS[claim.unit]
    if math.isnan(claim.effect):
        return "–"
    number = form.partition("}")[0] + "}"
    return f"{form.format(claim.effect)}\n{number.format(claim.low)} … {number.format(claim.high)}"
