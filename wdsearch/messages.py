"""Values, numbers, sizes, times and near misses as texts that people read."""

import difflib
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

MOST_SHOWN = 40


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X? known: ...`, for a word that is not known.

    >>> nearest("dropuot", ["dropout", "l1"])
    '; did you mean dropout? known: dropout, l1'
    """
    words = sorted(known)
    more = f" and {len(words) - MOST_SHOWN} more" if len(words) > MOST_SHOWN else ""
    return f"{did_you_mean(word, words) or ';'} known: {', '.join(words[:MOST_SHOWN])}{more}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, empty if no known word is near.

    >>> did_you_mean("acuracy", ["r2", "accuracy"]), did_you_mean("?", ["r2"])
    ('; did you mean accuracy?', '')
    """
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def shown_path(path: Sequence[str | int]) -> str:
    """Path of keys and indices as a study file's reader writes it.

    >>> shown_path(("objective", "minimize", 0))
    'objective.minimize[0]'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{_short(key)}" for key in path).lstrip(".")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def shown_value(value: Any) -> str:
    """Value in a study file's words, shortened and on one line.

    >>> shown_value(True), shown_value(None), shown_value([1, "a"])
    ('true', 'empty', "[1, 'a']")
    """
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except Exception:  # an own object's may fail, and so does that of a number of too many digits
        text = f"<{type(value).__name__}>"
    return _short(text)


def printable(text: str) -> str:
    r"""Text on one line that cannot steer a terminal.

    >>> printable("two\nlines\x1b[2J")
    'two\\nlines\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_number(value: float) -> str:
    """Number in four digits.

    >>> shown_number(0.0123456), shown_number(math.inf)
    ('0.01235', '∞')
    """
    return "∞" if value == math.inf else f"{value:.4g}"


def shown_bytes(count: int) -> str:
    """Bytes in MiB or GiB.

    >>> shown_bytes(3 * 2**20), shown_bytes(2**31)
    ('3 MiB', '2.0 GiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def counted(count: int, noun: str) -> str:
    """Number and noun.

    >>> counted(1, "batch"), counted(2000, "row")
    ('1 batch', '2,000 rows')
    """
    plural = f"{noun}es" if noun in ("class", "batch") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def shown_time(instant: float) -> str:
    """Instant, in seconds since 1970, as people and programs read it (RFC 3339).

    >>> shown_time(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown_setting(value: Any) -> str:
    """Setting of a trial: a float in four digits, all else as it is.

    >>> shown_setting(0.1), shown_setting(256), shown_setting("relu")
    ('0.1', '256', 'relu')
    """
    return shown_number(value) if isinstance(value, float) else str(value)
