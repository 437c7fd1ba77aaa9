"""Strengths of their own for some parameters or layers: ordered regular expressions over names, of which the first counts."""

import re
from collections.abc import Iterable, Mapping

TIMESCALE = ".timescale"
"""What Optuna's name of a key ends in that is searched as a timescale."""
Patterns = Mapping[str, str]
"""Regular expression of each group by its name, in the order in which they are tried."""


def group_key(key: str, group: str) -> str:
    """The key of one group's strength: `weight_decay:head`."""
    return f"{key}:{group}"


def split_key(key: str) -> tuple[str, str]:
    """A strength's regularizer, and its group; `` if it acts on all."""
    regularizer, _, group = key.partition(":")
    return regularizer, group


def group_name(pattern: str) -> str:
    r"""What a group without a name is called: `head\\.` is head, `.*` is rest."""
    return re.sub(r"\W+", "-", pattern, flags=re.ASCII).strip("-_") or "rest"


def assigned(patterns: Patterns, names: Iterable[str]) -> dict[str, list[str]]:
    """The names of each group: the first expression found anywhere in a name takes it, and some names are in none."""
    found: dict[str, list[str]] = {group: [] for group in patterns}
    for name in names:
        group = next((group for group, pattern in patterns.items() if re.search(pattern, name)), None)
        if group is not None:
            found[group].append(name)
    return found
