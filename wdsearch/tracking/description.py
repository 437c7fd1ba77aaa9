"""Describes a study and a trial in Markdown, for their records."""

from collections.abc import Mapping, Sequence
from typing import Any

from wdsearch.groups import TIMESCALE
from wdsearch.messages import shown_setting
from wdsearch.storage.results import StudyResult, TrialRecord, is_better, settings_of
from wdsearch.study.file import as_yaml
from wdsearch.trial.result import Result

SHOWN = 5
"""Best trials that are shown."""
LONGEST = 7500
"""Characters; MLflow would cut a description at 8,000."""


def study_description(result: StudyResult) -> str:
    """The answer in a sentence, the best trials beside the baseline, the study file, and the commands that go on.

    >>> import optuna
    >>> from wdsearch.storage.results import load_result
    >>> study_description(load_result(optuna.create_study(study_name="digits"))).splitlines()[0]
    'No trial of **digits** is complete yet.'
    """
    text = f"{_answer(result)}\n\n{_table(result)}\n\n`wdsearch best {result.study}` prints what to put into your own training."
    study = f"\n\nThe study:\n```yaml\n{as_yaml(result.config)}```"
    return text + (study if len(text + study) <= LONGEST else "\n\nThe study's file is too long to be shown here.")


def trial_description(params: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """A trial's settings, from its recorded params and its network's arguments, ready to be pasted into one's own training.

    >>> print(trial_description({"lr": 0.01, "torch.l2": "torch.optim.SGD(weight_decay=0.1)"}, {"hidden": [8]}))
    ```yaml
    lr: 0.01
    hidden: [8]
    ```
    <BLANKLINE>
    - `l2`: torch.optim.SGD(weight_decay=0.1)
    """
    derived = ("log10_", "torch.")
    numbers = {key: value for key, value in params.items() if isinstance(value, float) and not key.startswith(derived)}
    settings = {key: value for key, value in numbers.items() if not key.endswith(TIMESCALE)} | dict(arguments)
    prefix = "torch."
    words = [f"- `{key.removeprefix(prefix)}`: {text}" for key, text in params.items() if key.startswith(prefix)]
    return "\n".join([f"```yaml\n{as_yaml(settings)}```\n", *words])


def _answer(result: StudyResult) -> str:
    if result.best is None:
        return f"No trial of **{result.study}** is complete yet."
    goal, value = result.goals[0], result.best.values[0]
    text = f"Trial **{result.best.number}** is the best: {goal} **{shown_setting(value)}**"
    text += _gap(result.best.result)
    if result.baseline and goal in result.baseline.metrics:
        text += f"; unregularized {shown_setting(result.baseline.metrics[goal])}{_gap(result.baseline)}"
    return f"{text}."


def _gap(result: Result) -> str:
    return f" at a gap of {shown_setting(result.metrics['gap'])}" if "gap" in result.metrics else ""


def _table(result: StudyResult) -> str:
    rows = [(f"trial {trial.number}", trial.result) for trial in _best(result)]
    rows += [("baseline", result.baseline)] if result.baseline else []
    keys = list(dict.fromkeys(key for _, one in rows for key in settings_of(one)))
    reported = [*result.goals, "val_loss", "gap", "train_loss", f"val_{result.metric}"]
    names = [name for name in dict.fromkeys(reported) if any(name in one.metrics for _, one in rows)]
    lines = [["", *names, *keys], ["---", *("---:" for _ in (*names, *keys))]]
    for label, one in rows:
        settings = settings_of(one)
        lines.append([label, *(shown_setting(one.metrics.get(name, "")) for name in names)])
        lines[-1] += [shown_setting(settings.get(key, "")) for key in keys]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _best(result: StudyResult) -> Sequence[TrialRecord]:
    """The complete trials, best first; those that break a constraint after those that meet all."""
    complete = [trial for trial in result.trials if trial.state == "COMPLETE"]
    directions = result.optuna_study.directions
    ranked: list[TrialRecord] = []
    for trial in complete:
        rank = next(
            (i for i, other in enumerate(ranked) if is_better(trial.values, other.values, directions)), len(ranked)
        )
        ranked.insert(rank, trial)
    if result.best is not None:
        ranked.sort(key=lambda trial: trial.number != result.best.number)  # type: ignore[union-attr]
    return ranked[:SHOWN]
