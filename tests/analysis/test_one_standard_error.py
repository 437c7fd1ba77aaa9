"""λ.1se against numbers computed by hand."""

import math

import pytest

from wdsearch.analysis.one_standard_error import OneStandardError, one_standard_error


def by_seed(*losses: float) -> dict[int, float]:
    return dict(enumerate(losses))


def test_the_largest_strength_within_one_standard_error_of_the_best_is_chosen() -> None:
    # differences to λ = 0.1 of λ = 1: 0.1, −0.09, 0.1, −0.09, 0.1; mean 0.024, standard error 0.1041 / √5 = 0.0465
    losses = {0.0: by_seed(1.3, 1.2, 1.3, 1.2, 1.3), 0.1: by_seed(0.8, 0.9, 0.8, 0.9, 0.8)}
    losses[1.0] = by_seed(0.9, 0.81, 0.9, 0.81, 0.9)
    assert one_standard_error(losses) == OneStandardError(0.1, 1.0)


def test_differences_are_paired_by_seed() -> None:
    # seeds differ by far more than λ: each mean lies within the spread of the other, but the pairs differ by 0.10, 0.11, 0.12
    losses = {0.1: by_seed(1.0, 2.0, 3.0), 1.0: by_seed(1.10, 2.11, 3.12)}
    assert one_standard_error(losses) == OneStandardError(0.1, 0.1)


def test_the_bound_itself_is_within() -> None:
    # differences 0 and 2: mean 1, standard deviation √2, standard error 1
    assert one_standard_error({0.1: by_seed(1.0, 1.0), 1.0: by_seed(1.0, 3.0)}) == OneStandardError(0.1, 1.0)
    assert one_standard_error({0.1: by_seed(1.0, 1.0), 1.0: by_seed(1.125, 3.0)}) == OneStandardError(0.1, 0.1)


def test_a_weaker_decay_is_never_chosen_for_its_noise() -> None:
    assert one_standard_error({0.0: by_seed(1.0, 1.3), 0.1: by_seed(1.1, 1.0)}) == OneStandardError(0.1, 0.1)


@pytest.mark.parametrize("lost", [by_seed(0.1, math.nan), by_seed(0.1, math.inf), by_seed(0.1)])
def test_a_strength_that_lacks_a_seed_is_not_compared(lost: dict[int, float]) -> None:
    assert one_standard_error({0.1: by_seed(1.0, 1.1), 1.0: lost}) == OneStandardError(0.1, 0.1)
    assert one_standard_error({1.0: lost | {5: math.nan}}) is None
    assert one_standard_error({}) is None


def test_of_a_single_seed_the_best_is_chosen_and_of_equals_the_stronger() -> None:
    assert one_standard_error({0.0: by_seed(1.0), 0.1: by_seed(0.9), 1.0: by_seed(0.91)}) == OneStandardError(0.1, 0.1)
    assert one_standard_error({0.0: by_seed(1.0), 1.0: by_seed(1.0)}) == OneStandardError(1.0, 1.0)
