"""Due times of sweeps: cron's five fields in a time zone as instants, and the `schedule` of a study file. Knows no clock."""

import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from wdsearch.messages import did_you_mean
from wdsearch.study.fields import Count

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
FIELDS = ("minute", "hour", "day of month", "month", "day of week")
MOST_FIRES = 1000
"""Most due times in a row that are looked at, the latest ones; every minute of years is of no use."""
LONGEST_GAP = timedelta(hours=26)
"""Longer than clocks were ever set forward at once (a day, in Samoa in 2011)."""


def _cron(text: str) -> str:
    """Check of a cron text: what cron knows and no more, so that any other scheduler takes it."""
    words = fields(text).split()
    if text.strip().startswith("@") and not words:
        raise PydanticCustomError("allowed", "five fields, or one of {known}", {"known": ", ".join(ALIASES)})
    if len(words) != len(FIELDS):
        example = f"five fields ({', '.join(FIELDS)}), as in '0 2 * * 1'"
        raise PydanticCustomError("allowed", "{example}; these are {count}", {"example": example, "count": len(words)})
    for name, word in zip(FIELDS, words, strict=True):
        known = {"month": MONTHS, "day of week": DAYS}.get(name, ())
        names = re.findall("[A-Z]+", word.upper())
        if not re.fullmatch(r"[0-9A-Za-z*,/-]+", word) or not set(names) <= set(known):
            allowed = "numbers, * , - /" + (f", and names such as {known[1]}" if known else "")
            raise PydanticCustomError("allowed", "{allowed} as the {name}", {"allowed": allowed, "name": name})
    try:
        first = next(CronSim(" ".join(words), datetime(2024, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        bad = {"field": str(error).removeprefix("Bad ").replace("-", " ")}
        raise PydanticCustomError("allowed", "another {field}: cron knows none like this", bad) from None
    if first is None:
        raise PydanticCustomError("allowed", "a day that exists")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except Exception:  # KeyError, ValueError, OSError: by what the name makes of a path
        hint = did_you_mean(name, available_timezones())
        raise PydanticCustomError(
            "allowed", "a name of the time zone database, as Europe/Berlin{hint}", {"hint": hint}
        ) from None
    return name


Cron = Annotated[str, Field(max_length=500, json_schema_extra={"examples": ["0 2 * * 1"]}), AfterValidator(_cron)]
Zone = Annotated[str, Field(max_length=100), AfterValidator(_zone)]


class ScheduleConfig(BaseModel):
    """Times at which `wdsearch schedule` starts sweeps of this study, and with which workers; no part of what makes the study."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    cron: Cron
    """Timetable: cron's five fields (minute, hour, day of month, month, day of week), or @daily and the like."""
    timezone: Zone = "UTC"
    """The time zone that `cron` is read in, as Europe/Berlin."""
    workers: Count = 1
    """Workers of each sweep."""
    on: str = "local"
    """The engine that starts them: one of those that `wdsearch list` shows."""
    overlap: Literal["skip", "queue"] = "skip"
    """Fate of a sweep while the one before is at work: left out, or begun when that has ended."""
    catch_up: Literal["none", "last", "all"] = "last"
    """Sweeps, missed while no scheduler ran, that are made up for; of `all` each waits for the one before."""
    options: dict[str, Any] = {}
    """Options of the engine, as `wdsearch launch -o` takes them: {partition: gpu}."""

    @property
    def spec(self) -> str:
        """Text that identifies the timetable: a changed one counts from when it is first seen."""
        return f"{fields(self.cron)} {self.timezone}"


def fields(cron: str) -> str:
    """Cron's five fields; empty for an @word that is none of ours (@reboot is no time).

    >>> fields(" 0  2 * * 1"), fields("@daily"), fields("@reboot")
    ('0 2 * * 1', '0 0 * * *', '')
    """
    text = cron.strip()
    return ALIASES.get(text.lower(), "") if text.startswith("@") else " ".join(text.split())


def cron_fault(text: str) -> str | None:
    """The allowed values for the first wrong field of a cron text; None for a sound one.

    >>> cron_fault("0 25 * * MON"), cron_fault("@daily")
    ('another hour: cron knows none like this', None)
    """
    try:
        _cron(text)
    except PydanticCustomError as error:
        return error.message()
    return None


def numbers(cron: str) -> list[list[int]]:
    """The minutes, hours, days, months and weekdays (Sunday is 0) that a sound cron text names.

    >>> numbers("0,30 2 1 */6 FRI-7")
    [[0, 30], [2], [1], [1, 7], [0, 5, 6]]
    """
    from cronsim.cronsim import Field

    kinds = (Field.MINUTE, Field.HOUR, Field.DAY, Field.MONTH, Field.DOW)
    parsed = [kind.parse(word) for kind, word in zip(kinds, fields(cron).upper().split(), strict=True)]
    *others, weekdays = [[number for number in field if isinstance(number, int)] for field in parsed]
    return [*map(sorted, others), sorted({number % 7 for number in weekdays})]


def fires(cron: str, zone: str, after: float) -> Iterator[int]:
    """The instants after `after`, in seconds since 1970, each once and in order.

    As Debian's cron has it, which cronsim follows: of two day fields that are both restricted either suffices; a time of day
    that summer time skips comes when it begins, and one that winter time repeats comes once; what runs every hour or every
    minute (`*`) follows the clock that does not jump.

    >>> from itertools import islice
    >>> list(islice(fires("*/30 * * * *", "UTC", after=0.0), 3))
    [1800, 3600, 5400]
    """
    last = int(after)
    start = datetime.fromtimestamp(last, UTC) - LONGEST_GAP  # what is due may have been skipped by the clock before
    for due in CronSim(fields(cron), start.astimezone(_tzinfo(zone))):
        instant = int(due.timestamp())
        if instant > last:
            last = instant
            yield instant


def fires_between(cron: str, zone: str, after: float, until: float) -> list[int]:
    """The fires after `after` up to `until`; of very many the latest.

    >>> fires_between("0 * * * *", "UTC", after=0.0, until=7200.0)
    [3600, 7200]
    """
    latest: deque[int] = deque(maxlen=MOST_FIRES)
    for instant in fires(cron, zone, after):
        if instant > until:
            break
        latest.append(instant)
    return list(latest)


def next_fire(cron: str, zone: str, after: float) -> int:
    """The first fire after `after`.

    >>> next_fire("0 0 * * *", "Europe/Berlin", after=0.0)  # midnight in Berlin is 23:00 UTC
    82800
    """
    return next(fires(cron, zone, after))


def latest_fire(cron: str, zone: str, until: float) -> int | None:
    """The last fire up to `until`; None if there was none within eight years, as 29 February may be apart.

    >>> latest_fire("0 0 * * *", "UTC", until=100_000.0)
    86400
    """
    for days in (1, 8, 32, 367, 8 * 366):
        if due := fires_between(cron, zone, until - days * 86_400, until):
            return due[-1]
    return None


def _tzinfo(zone: str) -> Any:
    return UTC if zone == "UTC" else ZoneInfo(zone)


def dated(family: str, instant: float) -> str:
    """The name of a family's sweep: FAMILY.20261126T0200Z.

    >>> dated("digits", 0.0)
    'digits.19700101T0000Z'
    """
    return f"{family}.{datetime.fromtimestamp(instant, UTC):%Y%m%dT%H%MZ}"


LONGEST_FAMILY = 100 - len(dated("", 0))
"""Letters of a study's name that leave room for the date."""
