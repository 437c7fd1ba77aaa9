"""λ.1se against numbers computed by hand."""

import math

import pytest

from wdsearch.analysis.one_standard_error import OneStandardError, one_standard_error


def by_seed(*losses: float) -> dict[int, float]:
    return dict(enumerate(losses))


def test_the_largest_strength_within_one_standard_error_of_the_best_is_chosen() -> None:
    # λ = 0.1: mean 0.84, standard deviation √0.003, standard error √(0.003 / 5) = 0.0245; λ = 1 has a mean of 0.864
    losses = {0.0: by_seed(1.3, 1.2, 1.3, 1.2, 1.3), 0.1: by_seed(0.8, 0.9, 0.8, 0.9, 0.8)}
    losses[1.0] = by_seed(0.9, 0.81, 0.9, 0.81, 0.9)
    assert one_standard_error(losses) == OneStandardError(0.1, 1.0)
    losses[1.0] = by_seed(0.9, 0.82, 0.9, 0.81, 0.9)  # 0.866: beyond it
    assert one_standard_error(losses) == OneStandardError(0.1, 0.1)


def test_the_error_is_the_bests_however_wild_another_strength_is() -> None:
    """A λ with one seed 50 nats worse has a paired difference within its own error: it is not as good."""
    losses = {0.1: by_seed(1.0, 1.1, 1.0, 1.1, 1.0), 1.0: by_seed(1.0, 1.1, 1.0, 51.0, 1.0)}
    assert one_standard_error(losses) == OneStandardError(0.1, 0.1)


def test_nothing_is_chosen_beyond_a_strength_that_is_worse() -> None:
    losses = {0.1: by_seed(1.0, 1.2), 0.3: by_seed(1.0, 1.3), 1.0: by_seed(3.0, 3.0), 3.0: by_seed(1.1, 1.2)}
    assert one_standard_error(losses) == OneStandardError(0.1, 0.3)


def test_the_bound_itself_is_within() -> None:
    # λ = 0.1: mean 1, standard deviation √2, standard error 1
    assert one_standard_error({0.1: by_seed(0.0, 2.0), 1.0: by_seed(2.0, 2.0)}) == OneStandardError(0.1, 1.0)
    assert one_standard_error({0.1: by_seed(0.0, 2.0), 1.0: by_seed(2.125, 2.0)}) == OneStandardError(0.1, 0.1)


def test_a_weaker_decay_is_never_chosen_for_its_noise() -> None:
    assert one_standard_error({0.0: by_seed(1.0, 1.3), 0.1: by_seed(1.1, 1.0)}) == OneStandardError(0.1, 0.1)


@pytest.mark.parametrize("lost", [by_seed(0.1, math.nan), by_seed(0.1, math.inf), by_seed(0.1)])
def test_a_strength_that_failed_on_a_seed_is_not_chosen_and_none_beyond_it(lost: dict[int, float]) -> None:
    assert one_standard_error({0.1: by_seed(1.0, 1.1), 1.0: lost}) == OneStandardError(0.1, 0.1)
    beyond = {0.1: by_seed(1.0, 1.1), 1.0: lost, 3.0: by_seed(1.0, 1.11)}
    assert one_standard_error(beyond) == OneStandardError(0.1, 0.1)
    assert one_standard_error({1.0: lost | {5: math.nan}}) is None
    assert one_standard_error({}) is None


def test_of_a_single_seed_the_best_is_chosen_and_of_equals_the_stronger() -> None:
    assert one_standard_error({0.0: by_seed(1.0), 0.1: by_seed(0.9), 1.0: by_seed(0.91)}) == OneStandardError(0.1, 0.1)
    assert one_standard_error({0.0: by_seed(1.0), 1.0: by_seed(1.0)}) == OneStandardError(1.0, 1.0)
