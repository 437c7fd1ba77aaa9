"""The path of one λ: from the study file to Optuna's distributions and back to strengths."""

import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from wdsearch.regularizers import REGULARIZERS
from wdsearch.study.file import StudyFileError
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.study.space import baseline, check_timescales, configuration, distributions
from wdsearch.trial.recipe import Recipe


def study(**space: object) -> StudyConfig:
    content = {"study": "x", "data": "digits", "model": "mlp", "space": space, "budget": {"trials": 1, "epochs": 1}}
    return load_study(content)


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
        "weight_decay.timescale": FloatDistribution(0.01, 10 * 1000 ** (1 / 7), log=True),
        "dropout": FloatDistribution(0, 0.5),
        "l2": FloatDistribution(1e-6, 1, log=True),
        "input_noise": FloatDistribution(0, 1, step=0.25),
        "early_stopping": IntDistribution(2, 10),
        "model.hidden": CategoricalDistribution(("[8]", "[16, 8]")),
        "model.activation": CategoricalDistribution(("relu", "tanh")),
    }


def test_a_timescale_is_the_training_lengths_in_which_weights_shrink_by_e() -> None:
    config = study(lr={"low": 1e-4, "high": 1, "log": True}, weight_decay={"timescale": [0.01, 10]})
    factors = Recipe(schedule="cosine", warmup=0.1).factors(5000)
    for timescale in (0.3, 1.0, 4.0):
        point = configuration(config, {"lr": 1e-3, "weight_decay.timescale": timescale}, sum(factors))
        decay = point.strengths["weight_decay"]
        left = math.prod(1 - 1e-3 * factor * decay for factor in factors)
        assert left == pytest.approx(math.exp(-1 / timescale), rel=0.01)


OFF: list[tuple[str, dict[str, object], object, object, object]] = [
    ("weight_decay", {"timescale": [0.01, 10]}, 9.99, 10.01, FloatDistribution(0.01, 10 * 1000 ** (1 / 7), log=True)),
    ("weight_decay", {"low": 0.1, "high": 1, "log": True}, 0.1, 0.0999, FloatDistribution(0.1 ** (8 / 7), 1, log=True)),
    ("l2", {"low": 0.1, "high": 0.8}, 0.1, 0.0999, FloatDistribution(0.0, 0.8)),
    ("dropout", {"low": 0.0, "high": 0.7}, 0.0, -0.001, FloatDistribution(-0.1, 0.7)),
    ("input_noise", {"low": 0.1, "high": 0.7, "step": 0.1}, 0.1, 0.0, FloatDistribution(0.0, 0.7, step=0.1)),
    (
        "gradient_clip",
        {"low": 0.1, "high": 10, "log": True},
        10.0,
        10.1,
        FloatDistribution(0.1, 10 * 100 ** (1 / 7), log=True),
    ),
    ("early_stopping", {"low": 2, "high": 9}, 9, 10, IntDistribution(2, 10)),
    ("early_stopping", {"choices": [3, 9]}, 9, math.inf, CategoricalDistribution((3, 9, math.inf))),
]


@pytest.mark.parametrize(("key", "given", "on", "off", "expected"), OFF, ids=[f"{row[0]} {row[1]}" for row in OFF])
def test_off_lies_beyond_the_end_at_which_the_regularizer_vanishes(
    key: str, given: dict[str, object], on: object, off: object, expected: object
) -> None:
    config = study(**{key: given | {"off": True}})
    ((name, distribution),) = distributions(config).items()
    assert type(distribution) is type(expected)
    assert {word: getattr(distribution, word, None) for word in ("log", "step", "choices")} == {
        word: getattr(expected, word, None) for word in ("log", "step", "choices")
    }
    for end in ("low", "high"):
        assert getattr(distribution, end, None) == pytest.approx(getattr(expected, end, None))
    neutral = REGULARIZERS[key].neutral
    assert configuration(config, {name: off}, 100.0).strengths == {key: neutral}
    assert configuration(config, {name: on}, 100.0).strengths[key] not in (neutral, None) or on == neutral


def test_fixed_values_pass_through() -> None:
    assert configuration(study(l1=0.5, l2={"low": 0, "high": 1}), {"l2": 0.1}, 1.0).strengths == {"l1": 0.5, "l2": 0.1}


def test_the_baseline_is_unregularized_at_the_studys_rate() -> None:
    config = study(dropout=0.3, lr={"low": 0.1, "high": 1}, **{"model.hidden": {"choices": [[8], [16]]}})
    point = baseline(config)
    assert (point.lr, point.strengths, point.model) == (1e-3, {"dropout": 0.0}, {"hidden": (256, 256)})


def test_a_decay_that_erases_weights_in_one_step_is_refused() -> None:
    config = study(weight_decay={"timescale": [0.01, 10]})
    check_timescales(config, rate_sum=640, largest_factor=1.0)
    with pytest.raises(StudyFileError, match=r"it must be above 0\.02"):
        check_timescales(config, rate_sum=50, largest_factor=1.0)


def test_a_range_of_an_argument_is_whole_only_if_it_was_written_so() -> None:
    class_path = "torch.nn.AvgPool1d"
    content = {
        "study": "x",
        "data": "digits",
        "model": {"class_path": class_path},
        "budget": {"trials": 1, "epochs": 1},
    }
    space = {"model.kernel_size": {"low": 1, "high": 4}, "model.stride": {"low": 1.0, "high": 4.0}}
    config = load_study({**content, "space": space})
    assert distributions(config) == {
        "model.kernel_size": IntDistribution(1, 4),
        "model.stride": FloatDistribution(1, 4),
    }
    # no default for kernel_size: the middle; stride's default is None
    assert baseline(config).model == {"kernel_size": 2, "stride": None}


def test_the_baselines_network_is_the_one_that_a_study_without_a_space_has() -> None:
    content = {"study": "x", "data": "digits", "budget": {"trials": 1, "epochs": 1}}
    space = {"model.hidden": {"choices": [[8], [16]]}, "model.activation": "tanh", "l2": {"low": 0, "high": 1}}
    named = load_study({**content, "model": {"name": "mlp", "init_args": {"hidden": [4]}}, "space": space})
    assert baseline(named).model == {"hidden": [4], "activation": "tanh"}
    own = load_study({**content, "model": lambda width, hidden=5, activation="relu": None, "space": space})
    assert baseline(own).model == {"hidden": 5, "activation": "tanh"}


def test_choices_that_are_lists_come_back_as_lists() -> None:
    config = study(**{"model.hidden": {"choices": [[8], [16, 8]]}})
    for text, choice in (("[8]", [8]), ("[16, 8]", [16, 8])):
        assert configuration(config, {"model.hidden": text}, 1.0).model == {"hidden": choice}
