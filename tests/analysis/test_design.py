"""Trainings of an explanation, for winners of every kind."""

import math

import pytest

from wdsearch.analysis.design import Design, Schedule, design
from wdsearch.regularizers import REGULARIZERS
from wdsearch.study.space import Configuration

SCHEDULE = Schedule(rate_sum=640.0, largest_factor=1.0)


def planned(strengths: dict[str, float], lr: float = 0.01, schedule: Schedule = SCHEDULE, drops: bool = True) -> Design:
    return design(Configuration(lr, strengths, {"hidden": [8]}), schedule, drops)


def arm(plan: Design, name: str) -> list[Configuration]:
    return [settings for own, settings in plan.cells if own == name]


WINNERS = {
    "usual": {"weight_decay": 0.2, "dropout": 0.17},
    "no decay": {"weight_decay": 0.0, "dropout": 0.0, "gradient_clip": math.inf},
    "tiny decay": {"weight_decay": 1e-6, "dropout": 0.9},
    "huge decay": {"weight_decay": 99.0},
    "l2": {"l2": 1e-3, "l1": 1e-5},
    "l2 beside no decay": {"weight_decay": 0.0, "l2": 1e-3},
    "nothing of it": {"dropout": 0.3},
    "groups": {"weight_decay:head": 0.1, "weight_decay:body": 0.4, "dropout:first": 0.1, "dropout:last": 0.3},
}


@pytest.mark.parametrize("strengths", WINNERS.values(), ids=WINNERS)
@pytest.mark.parametrize("schedule", [SCHEDULE, Schedule(3.0, 1.0), Schedule(9e5, 0.7)])
def test_every_design_is_allowed_and_has_off_the_winner_and_what_lies_around(
    strengths: dict[str, float], schedule: Schedule
) -> None:
    plan = planned(strengths, schedule=schedule)
    decay, decays = plan.axes.decay, arm(plan, "weight_decay")
    values = [settings.strengths.get(decay, 0.0) for settings in decays]
    assert len(values) == len(set(values)) == 11
    assert values[0] == 0.0
    assert plan.axes.reference in values
    assert strengths.get(decay, 0.0) in values
    assert values == sorted(values)
    assert min(values[1:]) < plan.axes.reference <= max(values)
    for settings in plan.configurations:
        assert settings.model == {"hidden": [8]}
        for key, value in settings.strengths.items():
            assert value in REGULARIZERS[key.partition(":")[0]].domain, key
            if key.startswith("weight_decay"):
                assert settings.lr * schedule.largest_factor * value < 1.0
    assert {settings.lr for settings in arm(plan, "lr")} >= {0.01}
    assert len(plan.configurations) <= 40


def test_where_one_cell_serves_several_arms_it_is_trained_once() -> None:
    plan = planned(WINNERS["usual"])
    winner = Configuration(0.01, WINNERS["usual"], {"hidden": [8]})
    assert [name for name, settings in plan.cells if settings == winner] == ["weight_decay", "dropout", "lr"]
    assert len(plan.configurations) < len(plan.cells)


def test_what_the_winner_uses_is_varied_and_decay_comes_before_l2() -> None:
    keys = {name: planned(strengths).axes.decay for name, strengths in WINNERS.items()}
    assert keys["l2"] == keys["l2 beside no decay"] == "l2"
    assert keys["no decay"] == keys["nothing of it"] == keys["usual"] == "weight_decay"


def test_groups_are_scaled_together() -> None:
    plan = planned(WINNERS["groups"])
    assert (plan.axes.decay, plan.axes.dropout) == ("weight_decay:body", "dropout:last")
    for settings in plan.configurations:
        assert settings.strengths["weight_decay:head"] == pytest.approx(settings.strengths["weight_decay:body"] / 4)
        assert settings.strengths["dropout:first"] == pytest.approx(settings.strengths["dropout:last"] / 3)
    off = planned({"weight_decay:head": 0.0, "weight_decay:body": 0.0})
    for settings in off.configurations:
        assert settings.strengths["weight_decay:head"] == settings.strengths["weight_decay:body"]


def test_of_two_decays_the_other_goes_down_to_0_with_the_one_that_is_varied_and_not_up() -> None:
    plan = planned({"weight_decay": 0.2, "l2": 1e-3, "l1": 1e-5})
    assert plan.axes.decay == "weight_decay"
    decays = {settings.strengths["weight_decay"] for settings in plan.configurations}
    assert min(decays) == 0.0
    assert max(decays) > 1.0
    for settings in plan.configurations:
        assert settings.strengths["l2"] == pytest.approx(min(1e-3, settings.strengths["weight_decay"] / 200))
    off = planned({"weight_decay": 0.2, "l2": 0.0})
    assert {settings.strengths["l2"] for settings in off.configurations} == {0.0}


def test_without_decay_a_timescale_of_one_stands_for_it() -> None:
    assert planned(WINNERS["no decay"]).axes.reference == pytest.approx(1 / (0.01 * 640))


def test_high_rates_at_which_a_step_would_erase_the_weights_are_left_out() -> None:
    rates = {settings.lr for settings in arm(planned({"weight_decay": 5.0}), "lr")}
    assert rates == {0.01, 0.03, 0.1}
