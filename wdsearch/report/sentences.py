"""Sentences and numbers of a report: the answer, winner beside baseline, claims and advice."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wdsearch.analysis.advice import Flag
from wdsearch.analysis.outcomes import (
    CONTRADICTED,
    NO_EFFECT,
    SUPPORTED,
    UNDETERMINED,
    Claim,
    Explanation,
    explained_trial,
)
from wdsearch.messages import shown_number
from wdsearch.regularizers import neutral, regularizer_of
from wdsearch.report.study_charts import chosen_strength, strength_text
from wdsearch.report.texts import Texts
from wdsearch.storage.results import StudyResult, TrialRecord, is_better, main_key, settings_of
from wdsearch.trial.result import Result

PERCENT = ("share", "weights", "runs")
"""Units of effects that are shown in hundredths."""


def answer(result: StudyResult, explanation: Explanation | None, words: Texts) -> list[str]:
    """Three sentences: the best configuration, its baseline, and how far it can be trusted."""
    if result.best is None:
        return [words("answer.none", study=result.study)]
    goal, best = result.goals[0], result.best.result
    count = sum(result.counts[name] for name in ("complete", "pruned", "diverged"))
    first = words(
        "answer.best",
        count=count,
        number=result.best.number,
        settings=_settings(result, words),
        goal=words.metric(goal),
        value=shown_number(result.best.values[0]),
        gap=_gap_of(best, goal, words),
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


def settings_shown(result: StudyResult, trained: Result) -> dict[str, Any]:
    """A trial's settings by key; of a user-defined LightningModule its arguments, lr only if that is one."""
    settings = settings_of(trained)
    user_defined = not result.metric
    if user_defined and "lr" not in result.config.get("space", {}):
        settings.pop("lr")
    return {key.removeprefix("model.") if user_defined else key: value for key, value in settings.items()}


def _gap_of(trained: Result, goal: str, words: Texts) -> str:
    shows = "gap" in trained.metrics and goal != "gap"
    return words("answer.gap", gap=shown_number(trained.metrics["gap"])) if shows else ""


def _against_baseline(result: StudyResult, goal: str, words: Texts) -> str:
    if result.baseline is None:
        return words("answer.no_baseline")
    if goal not in result.baseline.metrics:
        return words("answer.baseline_same", goal=words.metric(goal))
    value = shown_number(result.baseline.metrics[goal])
    settings, gap = settings_shown(result, result.baseline), _gap_of(result.baseline, goal, words)
    rate = words("answer.rate", lr=shown_number(settings["lr"])) if "lr" in settings else ""
    baseline = words("answer.baseline", rate=rate, goal=words.metric(goal), value=value, gap=gap)
    return " ".join(filter(None, (baseline, _tuned_baseline(result, goal, words))))


def _tuned_baseline(result: StudyResult, goal: str, words: Texts) -> str:
    """The best unregularized trial beside the baseline, which has the study's own rate; empty if no rate was searched."""
    if "lr" not in result.config.get("space", {}):
        return ""
    trial = _best_unregularized(result)
    if trial is None:
        return words("answer.untuned")
    value, lr = shown_number(trial.values[0]), shown_number(trial.result.lr)
    return words("answer.tuned", number=trial.number, lr=lr, goal=words.metric(goal), value=value)


def _best_unregularized(result: StudyResult) -> TrialRecord | None:
    """The best complete trial all of whose strengths are neutral: a baseline at a rate that was searched."""
    trials = [
        trial
        for trial in result.trials
        if trial.state == "COMPLETE" and all(value == neutral(key) for key, value in trial.result.strengths.items())
    ]
    best = next(iter(trials), None)
    for trial in trials[1:]:
        best = trial if best and is_better(trial.values, best.values, result.optuna_study.directions) else best
    return best


def _trust(result: StudyResult, explanation: Explanation | None, words: Texts) -> str:
    if explanation is None:
        other = explained_trial(result)
        name = "answer.not_explained" if other is None else "answer.other_explained"
        return words(name, study=result.study, number=other)
    verdicts = [claim.verdict for claim in explanation.claims]
    tally = {verdict: verdicts.count(verdict) for verdict in (SUPPORTED, CONTRADICTED, NO_EFFECT, UNDETERMINED)}
    chosen = chosen_strength(explanation, result)
    one_se = words("answer.no_one_se")
    if chosen is not None:
        best, most = (strength_text(explanation.decay, value, words) for value in (chosen.best, chosen.chosen))
        one_se = words("answer.one_se", key=explanation.decay, best=best, chosen=most)
    return words("answer.explained", seeds=explanation.seeds, one_se=one_se, count=len(verdicts), **tally)


def comparison(result: StudyResult, words: Texts) -> list[tuple[str, ...]]:
    """Rows of name, key, the winner's value, the baseline's, and the difference: settings, then metrics, then epochs."""
    sides = [result.best.result if result.best else None, result.baseline]
    settings = [settings_shown(result, side) if side else {} for side in sides]
    rows: list[tuple[str, ...]] = []
    for key in dict.fromkeys([*settings[0], *settings[1]]):
        best, baseline = (_shown_setting(key, side.get(key), words) for side in settings)
        rows.append(("", key, best, baseline, ""))
    metrics: list[Mapping[str, float]] = [side.metrics if side else {} for side in sides]
    for name in _metric_names(result, metrics):
        of_best, of_baseline = (side.get(name, math.nan) for side in metrics)
        label = words.get(f"metric.{name}", "")
        rows.append((label, name, value_text(of_best), value_text(of_baseline), signed(of_best - of_baseline)))
    epochs = [str(side.epochs) if side else "" for side in sides]
    return [*rows, (words("table.epochs"), "", *epochs, "")]


def _metric_names(result: StudyResult, metrics: Sequence[Mapping[str, float]]) -> list[str]:
    """Names of the metrics: the goals, the losses, the gap, and the rest."""
    ordered = [
        *result.goals,
        "val_loss",
        "gap",
        "train_loss",
        f"val_{result.metric}",
        *(name for side in metrics for name in side),
    ]
    measured = {name for side in metrics for name in side}
    return [name for name in dict.fromkeys(ordered) if name in measured]


def _shown_setting(key: str, value: Any, words: Texts) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return strength_text(key, value, words) if regularizer_of(key) else shown_number(value)
    return str(value)


def value_text(value: float) -> str:
    """A number as text; `–` for NaN and ∞.

    >>> value_text(0.123456), value_text(math.nan)
    ('0.1235', '–')
    """
    return shown_number(value) if math.isfinite(value) else "–"


def signed(value: float) -> str:
    """A number with its sign as text; `–` for NaN and ∞.

    >>> signed(0.0201), signed(-3.0), signed(math.inf)
    ('+0.0201', '−3', '–')
    """
    return f"{value:+.3g}".replace("-", "−") if math.isfinite(value) else "–"


def finding(claim: Claim, words: Texts) -> str:
    """The finding on a claim, in a sentence.

    >>> claim = Claim("gap", SUPPORTED, -0.11, -0.14, -0.09, "loss", {}, {})
    >>> finding(claim, Texts("en"))
    'The gap between validation and training loss shrinks.'
    """
    return words(f"claim.{claim.key}.{claim.verdict}")


def reason(claim: Claim, words: Texts) -> str:
    """The reason why a claim is not supported, with the least effect that is excluded.

    >>> reason(Claim("gap", NO_EFFECT, 0.0, -0.01, 0.01, "loss", {"smallest": 0.02}, {}, "none"), Texts("en"))
    'λ acts, but an effect of 0.02 in loss or more is excluded.'
    """
    if claim.reason not in ("none", "plateau"):
        return words(f"reason.{claim.reason}")
    smallest = claim.evidence.get("smallest", math.nan) * (100.0 if claim.unit in PERCENT else 1.0)
    return words(f"reason.{claim.reason}", smallest=words(f"unit.{claim.unit}", value=value_text(smallest)))


def effect(claim: Claim, words: Texts) -> str:
    """A claim's effect with its interval, in its unit.

    >>> effect(Claim("gap", SUPPORTED, -0.11, -0.14, -0.09, "loss", {}, {}), Texts("en"))
    'Effect: −0.11 in loss (95 %: −0.14 to −0.09)'
    """
    if not math.isfinite(claim.effect):
        return words("claim.no_effect")
    value, interval = effect_and_interval(claim, words)
    return words("claim.effect", effect=value, interval=interval)


def effect_and_interval(claim: Claim, words: Texts) -> tuple[str, str]:
    """A claim's finite effect in its unit, and the bounds of its interval.

    >>> effect_and_interval(Claim("bell", SUPPORTED, -0.43, -0.46, -0.4, "share", {}, {}), Texts("en"))
    ('−43 %', '−46 to −40')
    """
    scale = 100.0 if claim.unit in PERCENT else 1.0
    value, low, high = (signed(scale * number) for number in (claim.effect, claim.low, claim.high))
    return words(f"unit.{claim.unit}", value=value), words("interval", low=low, high=high)


def flag_text(flag: Flag, words: Texts) -> str:
    """A flag in words; shares are shown in hundredths.

    >>> flag_text(Flag("diverging", {"count": 3.0, "trials": 20.0}), Texts("en"))
    '3 of 20 trials diverged: lower the upper end of lr, or search gradient_clip.'
    """
    values = {name: value * 100 if name in ("shrinkage", "share") else value for name, value in flag.values.items()}
    return words(
        f"flag.{flag.key}",
        **{name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in values.items()},
    )
