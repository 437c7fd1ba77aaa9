"""What a report says in words and numbers: the answer in three sentences, winner beside baseline, claims and flags."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wdsearch.analysis.advice import Flag
from wdsearch.analysis.outcomes import CONTRADICTED, SUPPORTED, UNDETERMINED, Claim, Explanation, explained_trial
from wdsearch.messages import shown_number
from wdsearch.regularizers import neutral, regularizer_of
from wdsearch.report.study_charts import chosen_strength, strength_text
from wdsearch.report.texts import Texts
from wdsearch.storage.results import StudyResult, main_key, settings_of
from wdsearch.trial.result import Result

PERCENT = ("share", "weights", "runs")
"""Units of which the effects are told in hundredths."""


def answer(result: StudyResult, explanation: Explanation | None, words: Texts) -> list[str]:
    """Three sentences: which configuration, against the baseline, and how far it can be trusted."""
    if result.best is None:
        return [words("answer.none", study=result.study)]
    goal, found = result.goals[0], result.best.result
    count = sum(result.counts[name] for name in ("complete", "pruned", "diverged"))
    first = words(
        "answer.best",
        count=count,
        number=result.best.number,
        settings=_settings(result, words),
        goal=words.metric(goal),
        value=shown_number(result.best.values[0]),
        gap=_gap_of(found, goal, words),
    )
    sentences = [first, _against_baseline(result, goal, words), _trust(result, explanation, words)]
    if len(result.pareto) > 1:
        sentences.append(words("answer.pareto", numbers=words("list.join").join(map(str, result.pareto))))
    return sentences


def _settings(result: StudyResult, words: Texts) -> str:
    """The winner's settings, λ first."""
    assert result.best is not None
    settings = settings_shown(result, result.best.result)
    first = main_key(result)
    keys = sorted(settings, key=lambda key: (key != first, key == "lr"))
    return words("list.join").join(_setting(key, settings[key], words) for key in keys)


def _setting(key: str, value: Any, words: Texts) -> str:
    if regularizer_of(key) and value == neutral(key):
        return words("answer.setting_off", key=key)
    return words("answer.setting", key=key, value=shown_number(value) if isinstance(value, float) else value)


def settings_shown(result: StudyResult, found: Result) -> dict[str, Any]:
    """A trial's settings by key; of a user's LightningModule its arguments, lr only if that is one."""
    settings = settings_of(found)
    own_module = not result.metric
    if own_module and "lr" not in result.config.get("space", {}):
        settings.pop("lr")
    return {key.removeprefix("model.") if own_module else key: value for key, value in settings.items()}


def _gap_of(found: Result, goal: str, words: Texts) -> str:
    shows = "gap" in found.metrics and goal != "gap"
    return words("answer.gap", gap=shown_number(found.metrics["gap"])) if shows else ""


def _against_baseline(result: StudyResult, goal: str, words: Texts) -> str:
    if result.baseline is None:
        return words("answer.no_baseline")
    if goal not in result.baseline.metrics:
        return words("answer.baseline_same", goal=words.metric(goal))
    value = shown_number(result.baseline.metrics[goal])
    settings, gap = settings_shown(result, result.baseline), _gap_of(result.baseline, goal, words)
    rate = words("answer.rate", lr=shown_number(settings["lr"])) if "lr" in settings else ""
    return words("answer.baseline", rate=rate, goal=words.metric(goal), value=value, gap=gap)


def _trust(result: StudyResult, explanation: Explanation | None, words: Texts) -> str:
    if explanation is None:
        other = explained_trial(result)
        name = "answer.not_explained" if other is None else "answer.other_explained"
        return words(name, study=result.study, number=other)
    verdicts = [claim.verdict for claim in explanation.claims]
    tally = {verdict: verdicts.count(verdict) for verdict in (SUPPORTED, CONTRADICTED, UNDETERMINED)}
    chosen = chosen_strength(explanation, result)
    one_se = words("answer.no_one_se")
    if chosen is not None:
        best, most = (strength_text(explanation.decay, value, words) for value in (chosen.best, chosen.chosen))
        one_se = words("answer.one_se", key=explanation.decay, best=best, chosen=most)
    return words("answer.explained", seeds=explanation.seeds, one_se=one_se, count=len(verdicts), **tally)


def comparison(result: StudyResult, words: Texts) -> list[tuple[str, ...]]:
    """Name, key, the winner's value, the baseline's, and the difference: settings, then metrics, then epochs."""
    sides = [result.best.result if result.best else None, result.baseline]
    settings = [settings_shown(result, side) if side else {} for side in sides]
    rows: list[tuple[str, ...]] = [
        ("", key, *(_shown_setting(key, side.get(key), words) for side in settings), "")
        for key in dict.fromkeys([*settings[0], *settings[1]])
    ]
    metrics: list[Mapping[str, float]] = [side.metrics if side else {} for side in sides]
    for name in _metric_names(result, metrics):
        best, baseline = (side.get(name, math.nan) for side in metrics)
        rows.append(
            (words.get(f"metric.{name}", ""), name, *map(value_text, (best, baseline)), signed(best - baseline))
        )
    epochs = [str(side.epochs) if side else "" for side in sides]
    return [*rows, (words("table.epochs"), "", *epochs, "")]


def _metric_names(result: StudyResult, metrics: Sequence[Mapping[str, float]]) -> list[str]:
    """The goals, the losses, the gap, and the rest."""
    wanted = [
        *result.goals,
        "val_loss",
        "gap",
        "train_loss",
        f"val_{result.metric}",
        *(n for one in metrics for n in one),
    ]
    return [name for name in dict.fromkeys(wanted) if any(name in one for one in metrics)]


def _shown_setting(key: str, value: Any, words: Texts) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return strength_text(key, value, words) if regularizer_of(key) else shown_number(value)
    return str(value)


def value_text(value: float) -> str:
    """A number; `–` for none."""
    return shown_number(value) if math.isfinite(value) else "–"


def signed(value: float) -> str:
    """A number with its sign; `–` for none."""
    return f"{value:+.3g}".replace("-", "−") if math.isfinite(value) else "–"


def finding(claim: Claim, words: Texts) -> str:
    """What was found of a claim, in a sentence."""
    return words(f"claim.{claim.key}.{claim.verdict}")


def effect(claim: Claim, words: Texts) -> str:
    """A claim's effect with its interval, in its unit."""
    if not math.isfinite(claim.effect):
        return words("claim.no_effect")
    value, interval = effect_and_interval(claim, words)
    return words("claim.effect", effect=value, interval=interval)


def effect_and_interval(claim: Claim, words: Texts) -> tuple[str, str]:
    """A claim's finite effect in its unit, and the bounds of its interval."""
    scale = 100.0 if claim.unit in PERCENT else 1.0
    value, low, high = (signed(scale * number) for number in (claim.effect, claim.low, claim.high))
    return words(f"unit.{claim.unit}", value=value), words("interval", low=low, high=high)


def flag_text(flag: Flag, words: Texts) -> str:
    """A flag in words; shares are told in hundredths."""
    told = {name: value * 100 if name in ("shrinkage", "share") else value for name, value in flag.values.items()}
    return words(f"flag.{flag.key}", **{n: f"{v:.3g}" if isinstance(v, float) else str(v) for n, v in told.items()})
