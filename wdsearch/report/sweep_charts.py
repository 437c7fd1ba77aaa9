"""The chart of a family's sweeps, and what is said of them: λ*, gap and result from sweep to sweep."""

import math
from collections.abc import Sequence

from wdsearch.analysis.strength_range import NEIGHBOURS, SEEDS, Range
from wdsearch.analysis.trend import Sweep, Trend
from wdsearch.messages import shown_number
from wdsearch.report.figures import BASELINE, BEST, CHOSEN, COMPLETE, LINE, Axis, Figure, Panel, Series
from wdsearch.report.study_charts import strength_axis, strength_text, value_axis
from wdsearch.report.texts import Texts

MOST_DATES = 8
"""On the axis."""


def sweeps_chart(found: Trend, words: Texts) -> Figure | None:
    """Three panels over the sweeps that have a best trial; None of fewer than two."""
    sweeps = [sweep for sweep in found.sweeps if sweep.strength is not None and sweep.key == found.key]
    if len(sweeps) < 2:
        return None
    every = math.ceil(len(sweeps) / MOST_DATES)
    dates = tuple(date(sweep) if place % every == 0 else "" for place, sweep in enumerate(sweeps))
    ranges = [sweep.range or Range(sweep.strength or 0.0, sweep.strength or 0.0, 0.0, "") for sweep in sweeps]
    lows, highs = tuple(one.low for one in ranges), tuple(one.high for one in ranges)
    strengths = tuple(sweep.strength or 0.0 for sweep in sweeps)
    labels = tuple(sweep.study for sweep in sweeps)
    places = tuple(map(float, range(len(sweeps))))
    best = Series(words("series.strength"), places, strengths, LINE, BEST, lows, highs, labels)
    panels = [Panel(strength_axis(found.key, [*strengths, *lows, *highs], words), (best,))]
    values = {
        "gap": [_line(sweeps, [sweep.gap for sweep in sweeps], words("series.gap"), CHOSEN)],
        found.goal: [
            _line(sweeps, [sweep.value for sweep in sweeps], words.metric(found.goal), COMPLETE),
            _line(sweeps, [sweep.baseline for sweep in sweeps], words("series.baseline"), BASELINE),
        ],
    }
    panels += [
        Panel(value_axis(words.metric(name), words), tuple(one for one in series if one.x))
        for name, series in values.items()
        if any(one.x for one in series)
    ]
    title = words("title.sweeps", family=found.family)
    return Figure("sweeps", title, Axis(words("axis.sweep"), names=dates), tuple(panels))


def _line(sweeps: Sequence[Sweep], values: Sequence[float | None], name: str, color: str) -> Series:
    known = [(float(place), value, sweeps[place].study) for place, value in enumerate(values) if value is not None]
    x, y, labels = zip(*known, strict=True) if known else ((), (), ())
    return Series(name, x, y, LINE, color, labels=labels, dashed=color == BASELINE)


def date(sweep: Sweep) -> str:
    """When a sweep was due, to the minute: 2026-11-26 02:00."""
    return sweep.fired[:16].replace("T", " ")


def range_text(key: str, found: Range | None, words: Texts) -> str:
    """A range of λ*; `–` where there is none."""
    if found is None:
        return "–"
    return f"{strength_text(key, found.low, words)} – {strength_text(key, found.high, words)}"


def verdict_sentences(found: Trend, words: Texts) -> list[str]:
    """Whether λ* moved, and how that is known."""
    if found.compared is None or found.reason:
        return [words(f"trend.{found.reason}")]
    texts = {
        f"{name}_{part}": text
        for name, sweep in zip(("before", "last"), found.compared, strict=True)
        for part, text in (
            ("strength", strength_text(sweep.key, sweep.strength or 0.0, words)),
            ("range", range_text(sweep.key, sweep.range, words)),
            ("date", date(sweep)),
        )
    }
    sentences = [words(f"trend.{found.verdict}", key=found.key, **texts)]
    if found.compared[0].data != found.compared[1].data:
        sentences.append(words("trend.data"))
    noises = {sweep.range.source: shown_number(sweep.range.noise) for sweep in found.compared if sweep.range}
    known = [source for source in (SEEDS, NEIGHBOURS) if source in noises]
    return sentences + [words(f"trend.noise.{source}", noise=noises[source]) for source in known]
