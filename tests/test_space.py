"""The path of one λ: from the study file to Optuna's distributions and back to strengths."""

import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from wdsearch.config import load_study
from wdsearch.recipe import Recipe
from wdsearch.space import baseline, check_timescales, configuration, distributions
from wdsearch.studyfile import StudyFileError


def study(**space: object):
    given = {"study": "x", "data": "digits", "model": "mlp", "space": space, "budget": {"trials": 1, "epochs": 1}}
    return load_study(given)


def test_each_form_has_its_distribution() -> None:
    config = study(
        weight_decay={"timescale": [0.01, 10], "off": True},
        dropout={"low": 0, "high": 0.5},
        l2={"low": 1e-6, "high": 1, "log": True},
        input_noise={"low": 0.0, "high": 1.0, "step": 0.25},
        early_stopping={"low": 2, "high": 9, "off": True},
        l1=0.5,
        **{"model.hidden": {"choices": [[8], [16, 8]]}, "model.activation": {"choices": ["relu", "tanh"]}},
    )
    assert distributions(config) == {
        "weight_decay.timescale": FloatDistribution(0.01, 10, log=True),
        "weight_decay.on": CategoricalDistribution((True, False)),
        "dropout": FloatDistribution(0, 0.5),
        "l2": FloatDistribution(1e-6, 1, log=True),
        "input_noise": FloatDistribution(0, 1, step=0.25),
        "early_stopping": IntDistribution(2, 9),
        "early_stopping.on": CategoricalDistribution((True, False)),
        "model.hidden": CategoricalDistribution(("[8]", "[16, 8]")),
        "model.activation": CategoricalDistribution(("relu", "tanh")),
    }


def test_a_timescale_is_the_training_lengths_in_which_weights_shrink_by_e() -> None:
    config = study(lr={"low": 1e-4, "high": 1, "log": True}, weight_decay={"timescale": [0.01, 10]})
    factors = Recipe(schedule="cosine", warmup=0.1).factors(5000)
    for timescale in (0.3, 1.0, 4.0):
        found = configuration(config, {"lr": 1e-3, "weight_decay.timescale": timescale}, sum(factors))
        decay = found.strengths["weight_decay"]
        left = math.prod(1 - 1e-3 * factor * decay for factor in factors)
        assert left == pytest.approx(math.exp(-1 / timescale), rel=0.01)


def test_a_closed_gate_is_neutral_and_fixed_values_pass_through() -> None:
    config = study(
        weight_decay={"low": 0.1, "high": 1, "off": True}, early_stopping={"low": 2, "high": 9, "off": True}, l1=0.5
    )
    params = {"weight_decay": 0.5, "weight_decay.on": False, "early_stopping": 3, "early_stopping.on": False}
    assert configuration(config, params, 1.0).strengths == {"weight_decay": 0.0, "early_stopping": math.inf, "l1": 0.5}
    opened = configuration(config, params | {"weight_decay.on": True}, 1.0)
    assert opened.strengths["weight_decay"] == 0.5


def test_the_baseline_is_unregularized_at_the_studys_rate() -> None:
    config = study(dropout=0.3, lr={"low": 0.1, "high": 1}, **{"model.hidden": {"choices": [[8], [16]]}})
    found = baseline(config)
    assert (found.lr, found.strengths, found.model) == (1e-3, {"dropout": 0.0}, {"hidden": [8]})


def test_a_decay_that_erases_weights_in_one_step_is_refused() -> None:
    config = study(weight_decay={"timescale": [0.01, 10]})
    check_timescales(config, rate_sum=640, largest_factor=1.0)
    with pytest.raises(StudyFileError, match=r"it must be above 0\.02"):
        check_timescales(config, rate_sum=50, largest_factor=1.0)
