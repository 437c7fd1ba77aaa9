"""The checks of tensors' shapes in these tests: there, and no longer than they have to be."""

import pytest
import torch
from jaxtyping import TypeCheckError
from support import shapes

from wdsearch.trial.weight_measures import mean_correlation


def test_a_wrong_shape_is_an_error_until_a_function_was_called_often_and_in_the_next_file_again() -> None:
    with pytest.raises(TypeCheckError, match="mean_correlation"):
        mean_correlation(torch.zeros(4))
    for _ in range(shapes.CALLS):
        mean_correlation(torch.rand(3, 4))
    with pytest.raises(IndexError):
        mean_correlation(torch.zeros(4))
    shapes.check_again()
    with pytest.raises(TypeCheckError, match="mean_correlation"):
        mean_correlation(torch.zeros(4))
