"""Groups of parameters or layers with strengths of their own: ordered regular expressions over names, the first match counts."""

import re
from collections.abc import Iterable, Mapping

TIMESCALE = ".timescale"
"""Suffix of Optuna's name for a key that is searched as a timescale."""
Patterns = Mapping[str, str]
"""Regular expression of each group by name, in the order in which they are tried."""


def group_key(key: str, group: str) -> str:
    """Key of the strength of one group.

    >>> group_key("weight_decay", "head")
    'weight_decay:head'
    """
    return f"{key}:{group}"


def split_key(key: str) -> tuple[str, str]:
    """Regularizer and group of a strength's key; the group is empty if it acts on all.

    >>> split_key("weight_decay:head"), split_key("dropout")
    (('weight_decay', 'head'), ('dropout', ''))
    """
    regularizer, _, group = key.partition(":")
    return regularizer, group


def group_name(pattern: str) -> str:
    r"""Default name of a group, from its regular expression.

    >>> group_name(r"head\."), group_name(".*")
    ('head', 'rest')
    """
    return re.sub(r"\W+", "-", pattern, flags=re.ASCII).strip("-_") or "rest"


def assigned(patterns: Patterns, names: Iterable[str]) -> dict[str, list[str]]:
    """Names of each group's members: the first expression that matches anywhere in a name takes it.

    >>> assigned({"head": "output", "rest": "weight"}, ["input.weight", "input.bias", "output.weight"])
    {'head': ['output.weight'], 'rest': ['input.weight']}
    """
    members: dict[str, list[str]] = {group: [] for group in patterns}
    for name in names:
        group = next((group for group, pattern in patterns.items() if re.search(pattern, name)), None)
        if group is not None:
            members[group].append(name)
    return members
