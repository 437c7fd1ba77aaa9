"""Chart and sentences on a family's sweeps: λ*, gap and result from sweep to sweep."""

import math
from collections.abc import Sequence
from dataclasses import replace

from wdsearch.analysis.strength_range import NEIGHBOURS, SEEDS, Range
from wdsearch.analysis.trend import Sweep, Trend
from wdsearch.messages import shown_number
from wdsearch.report.figures import BASELINE, BEST, CHOSEN, COMPLETE, LINE, Axis, Figure, Panel, Series
from wdsearch.report.study_charts import strength_axis, strength_text, value_axis
from wdsearch.report.texts import Texts

MOST_DATES = 8
"""Dates on the axis."""


def sweeps_chart(trend: Trend, words: Texts) -> Figure | None:
    """Three panels over the sweeps that have a best trial; None of fewer than two."""
    sweeps = [sweep for sweep in trend.sweeps if sweep.strength is not None and sweep.key == trend.key]
    if len(sweeps) < 2:
        return None
    every = math.ceil(len(sweeps) / MOST_DATES)
    dates = tuple(date(sweep) if index % every == 0 else "" for index, sweep in enumerate(sweeps))
    sweeps = [sweep for sweep in sweeps if sweep.in_timescales == sweeps[-1].in_timescales]
    ranges = [sweep.range or Range(sweep.decay or 0.0, sweep.decay or 0.0, 0.0, "") for sweep in sweeps]
    lows, highs = tuple(each.low for each in ranges), tuple(each.high for each in ranges)
    strengths = tuple(sweep.decay or 0.0 for sweep in sweeps)
    labels = tuple(sweep.study for sweep in sweeps)
    indices = tuple(map(float, range(len(sweeps))))
    best = Series(words("series.strength"), indices, strengths, LINE, BEST, lows, highs, labels)
    axis = strength_axis(trend.key, [*strengths, *lows, *highs], words)
    if sweeps[-1].in_timescales:
        axis = replace(axis, title=axis.title.replace(trend.key, words("axis.decay", key=trend.key), 1))
    panels = [Panel(axis, (best,))]
    values = {
        "gap": [_line(sweeps, [sweep.gap for sweep in sweeps], words("series.gap"), CHOSEN)],
        trend.goal: [
            _line(sweeps, [sweep.value for sweep in sweeps], words.metric(trend.goal), COMPLETE),
            _line(sweeps, [sweep.baseline for sweep in sweeps], words("series.baseline"), BASELINE),
        ],
    }
    drawn = {name: [line for line in lines if line.x] for name, lines in values.items()}
    panels += [Panel(value_axis(words.metric(name), words), tuple(series)) for name, series in drawn.items() if series]
    title = words("title.sweeps", family=trend.family)
    return Figure("sweeps", title, Axis(words("axis.sweep"), names=dates), tuple(panels))


def _line(sweeps: Sequence[Sweep], values: Sequence[float | None], name: str, color: str) -> Series:
    points = [(float(index), value, sweeps[index].study) for index, value in enumerate(values) if value is not None]
    x, y, labels = zip(*points, strict=True) if points else ((), (), ())
    return Series(name, x, y, LINE, color, labels=labels, dashed=color == BASELINE)


def date(sweep: Sweep) -> str:
    """Time at which a sweep was due, to the minute: 2026-11-26 02:00."""
    return sweep.fired[:16].replace("T", " ")


def range_text(sweep: Sweep, words: Texts) -> str:
    """The range of a sweep's λ* as text, in timescales if it is compared so; `–` where there is none."""
    if sweep.range is None:
        return "–"
    ends = (sweep.range.low, sweep.range.high)
    if not sweep.in_timescales:
        return words(
            "range", low=strength_text(sweep.key, ends[0], words), high=strength_text(sweep.key, ends[1], words)
        )
    longest, shortest = (shown_number(1.0 / end) if end else words("axis.off") for end in ends)
    return words("range.timescale", low=shortest, high=longest)


def best_text(sweep: Sweep, words: Texts) -> str:
    """A sweep's λ* as text, with its timescale if it is compared so; `–` where there is none."""
    if sweep.strength is None:
        return "–"
    text = strength_text(sweep.key, sweep.strength, words)
    if not sweep.in_timescales or not sweep.decay:
        return text
    return f"{text} ({words('timescale', value=shown_number(1.0 / sweep.decay))})"


def verdict_sentences(trend: Trend, words: Texts) -> list[str]:
    """Sentences that say whether λ* moved, and how that is known."""
    if trend.compared is None or trend.reason:
        return [words(f"trend.{trend.reason}")]
    texts = {
        f"{name}_{part}": text
        for name, sweep in zip(("before", "last"), trend.compared, strict=True)
        for part, text in (
            ("strength", best_text(sweep, words)),
            ("range", range_text(sweep, words)),
            ("date", date(sweep)),
        )
    }
    sentences = [words(f"trend.{trend.verdict}", key=trend.key, **texts)]
    if trend.compared[0].data != trend.compared[1].data:
        sentences.append(words("trend.data"))
    noises = {sweep.range.source: shown_number(sweep.range.noise) for sweep in trend.compared if sweep.range}
    sources = [source for source in (SEEDS, NEIGHBOURS) if source in noises]
    return sentences + [words(f"trend.noise.{source}", noise=noises[source]) for source in sources]
