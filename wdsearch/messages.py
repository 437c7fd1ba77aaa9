"""Values, numbers, sizes, times and near misses as texts that people read."""

import difflib
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

MOST_SHOWN = 40


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X? Known: ...`, for a word that is not known."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    more = f" and {len(words) - MOST_SHOWN} more" if len(words) > MOST_SHOWN else ""
    return (f"; did you mean {close[0]}? " if close else "; ") + f"known: {', '.join(words[:MOST_SHOWN])}{more}"


def shown_path(path: Sequence[str | int]) -> str:
    """A location as a person writes it: `space.dropout.high`, `objective.minimize[0]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{_short(key)}" for key in path).lstrip(".")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def shown_value(value: Any) -> str:
    """A given value, shortened and on one line."""
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except Exception:  # an own object's may fail, and so does that of a number of too many digits
        text = f"<{type(value).__name__}>"
    return _short(text)


def printable(text: str) -> str:
    """Text on one line that cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_number(value: float) -> str:
    """A number as a person reads it."""
    return "∞" if value == math.inf else f"{value:.4g}"


def shown_bytes(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def counted(count: int, noun: str) -> str:
    """A number and what it is of: 1 batch, 2 batches."""
    plural = f"{noun}es" if noun in ("class", "batch") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def shown_time(instant: float) -> str:
    """An instant as a person and a program read it: 2026-11-26T02:00:00Z."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown_setting(value: Any) -> str:
    """A number as a person reads it."""
    if isinstance(value, float):
        return "∞" if value == float("inf") else f"{value:.4g}"
    return str(value)
