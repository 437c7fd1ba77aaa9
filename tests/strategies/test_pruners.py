"""Our pruners against Optuna's own, and in whatever order they are asked."""

import optuna
import pytest
from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

from wdsearch.strategies.pruners import HalvingPruner, HyperbandPruner, rungs

VALUES = [0.9, 0.1, 0.5, 0.7, 0.3, 0.8, 0.2, 0.6, 0.4]


def study_with(values: list[float], step: int, direction: str = "minimize") -> tuple[optuna.Study, list[optuna.Trial]]:
    study = optuna.create_study(direction=direction)
    trials = [study.ask() for _ in values]
    for trial, value in zip(trials, values, strict=True):
        trial.report(value, step)
    return study, trials


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("order", [sorted(VALUES), sorted(VALUES, reverse=True), VALUES])
def test_a_rung_keeps_its_best_third_whatever_the_order(order: list[float], direction: str) -> None:
    study, trials = study_with(order, 10, direction)
    study.pruner = HalvingPruner(40)
    kept = {order[trial.number] for trial in trials if not trial.should_prune()}
    assert kept == ({0.1, 0.2, 0.3} if direction == "minimize" else {0.7, 0.8, 0.9})


@pytest.mark.parametrize("last", range(len(VALUES)))
def test_the_last_one_judged_fares_as_in_optunas_successive_halving(last: int) -> None:
    """Optuna counts those judged before, so only its last judgement of a rung sees all values."""
    _, trials = study_with(VALUES, 10)
    ours = HalvingPruner(40).prune(trials[0].study, trials[0].study.trials[last])
    order = [number for number in range(len(VALUES)) if number != last] + [last]
    study = optuna.create_study(pruner=SuccessiveHalvingPruner(min_resource=10, reduction_factor=3))
    asked = [study.ask() for _ in VALUES]
    for number in order:
        asked[number].report(VALUES[number], 10)
        theirs = asked[number].should_prune()
    assert ours == theirs


def test_rungs_are_late_and_below_the_budget() -> None:
    assert HalvingPruner(40).rungs(0) == [10, 20]
    assert HalvingPruner(40, min_resource=5).rungs(0) == [5, 10, 20]
    assert HalvingPruner(1).rungs(0) == []
    assert rungs(NopPruner(), 40, 0) == []
    assert rungs(MedianPruner(n_warmup_steps=10, interval_steps=10), 40, 0) == [10, 20, 30]


def test_hyperbands_brackets_depend_on_the_number_alone_in_its_proportions() -> None:
    pruner = HyperbandPruner(40, min_resource=5)
    brackets = [pruner.bracket(number) for number in range(1000)]
    weights = [3**s / (s + 1) for s in (3, 2, 1, 0)]
    for bracket, weight in enumerate(weights):
        assert brackets.count(bracket) == pytest.approx(1000 * weight / sum(weights), abs=5)
    late = brackets.index(2)
    assert pruner.rungs(late) == [20]
    assert set(brackets[:16]) >= {0, 1}
