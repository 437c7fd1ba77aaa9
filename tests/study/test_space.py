"""The path of one λ: from the study file to Optuna's distributions and back to strengths."""

import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from wdsearch.regularizers import REGULARIZERS
from wdsearch.study.file import StudyFileError
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.study.space import baseline, configuration, distributions, points, possible
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


def test_timescales_at_which_a_step_erases_the_weights_are_cut_and_said() -> None:
    config = study(weight_decay={"timescale": [0.01, 10], "off": True})
    assert possible(config, rate_sum=640, largest_factor=1.0) == (config, [])
    cut, (note,) = possible(config, rate_sum=50, largest_factor=1.0)
    assert cut.dimensions["weight_decay"].timescale == pytest.approx((0.0202, 10))
    assert cut.dimensions["weight_decay"].off
    assert "begins at 0.01" in note
    assert "from 0.0202 to 10" in note
    shortest = configuration(cut, {"weight_decay.timescale": 0.0202}, rate_sum=50).strengths["weight_decay"]
    assert shortest * cut.optimizer.lr == pytest.approx(1 / 1.01)
    with pytest.raises(StudyFileError, match=r"it must reach beyond 0\.505"):
        possible(study(weight_decay={"timescale": [0.1, 0.5]}), rate_sum=2, largest_factor=1.0)


def test_of_groups_each_is_cut_by_itself() -> None:
    groups = [
        {"match": "out", "name": "head", "timescale": [0.01, 10]},
        {"match": ".*", "name": "rest", "timescale": [1, 9]},
    ]
    cut, notes = possible(study(weight_decay={"groups": groups}), rate_sum=50, largest_factor=1.0)
    assert [part.timescale for part in cut.dimensions.values()] == [pytest.approx((0.0202, 10)), (1, 9)]
    assert len(notes) == 1
    assert "weight_decay:head" in notes[0]


@pytest.mark.parametrize(
    ("decay", "lr", "refused"),
    [
        ({"low": 0.1, "high": 30.0}, {"low": 1e-3, "high": 0.1}, "goes up to 30; at a learning rate of 0.1"),
        ({"low": 0.1, "high": 9.0}, {"low": 1e-3, "high": 0.1}, ""),
        ({"choices": [0.1, 2000]}, None, "goes up to 2000"),
        (1000.0, None, "goes up to 1000"),
        (0.3, {"choices": [0.1, 4.0]}, "at a learning rate of 4"),
        (0.3, 5.0, "at a learning rate of 5"),
        ({"timescale": [0.1, 1]}, {"low": 1e-3, "high": 100.0}, ""),  # holds ηλ whatever η is
    ],
)
def test_a_decay_that_erases_weights_in_one_step_at_the_highest_rate_is_refused(
    decay: object, lr: object, refused: str
) -> None:
    config = study(weight_decay=decay, dropout={"low": 0, "high": 0.5}, **({"lr": lr} if lr is not None else {}))
    if not refused:
        assert possible(config, rate_sum=640, largest_factor=1.0) == (config, [])
        return
    with pytest.raises(StudyFileError, match=refused):
        possible(config, rate_sum=640, largest_factor=1.0)


def test_half_of_the_highest_rate_counts_where_the_schedule_never_reaches_it() -> None:
    config = study(weight_decay=0.9, lr=2.0, dropout={"low": 0, "high": 0.5})
    assert possible(config, rate_sum=10, largest_factor=0.5)[1] == []


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


def test_the_points_of_a_space_are_counted() -> None:
    config = study(dropout={"low": 0, "high": 0.5, "step": 0.1}, **{"model.hidden": {"choices": [[8], [16]]}})
    assert points(distributions(config)) == 12
    assert points(distributions(study(weight_decay={"choices": [0.1]}, dropout=0.2))) == 1
    assert points(distributions(study(early_stopping={"low": 2, "high": 5}))) == 4
    assert points(distributions(study(weight_decay={"timescale": [0.1, 1]}))) == math.inf
