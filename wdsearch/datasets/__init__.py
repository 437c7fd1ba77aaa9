"""The table of data sets: one file and one line each."""

from wdsearch.datasets._base import ArrayDataModule, Arrays
from wdsearch.datasets.breast_cancer import BreastCancer
from wdsearch.datasets.diabetes import Diabetes
from wdsearch.datasets.digits import Digits
from wdsearch.datasets.mnist1d import MNIST1D

DATASETS: dict[str, type[ArrayDataModule]] = {
    "mnist1d": MNIST1D,
    "digits": Digits,
    "breast_cancer": BreastCancer,
    "diabetes": Diabetes,
}

__all__ = ["DATASETS", "ArrayDataModule", "Arrays"]
