"""The table of data sets: one file and one line each."""

from wdsearch.datasets._base import ArrayDataModule, Arrays
from wdsearch.datasets.arrays import ArraysData
from wdsearch.datasets.breast_cancer import BreastCancer
from wdsearch.datasets.diabetes import Diabetes
from wdsearch.datasets.digits import Digits
from wdsearch.datasets.images import ImageFolder
from wdsearch.datasets.mnist1d import MNIST1D
from wdsearch.datasets.openml import OpenMLData
from wdsearch.datasets.table import TableData
from wdsearch.datasets.torchvision import TorchvisionData
from wdsearch.plugins import Table


def _misfit(_: str, entry: object) -> str:
    fits = isinstance(entry, type) and issubclass(entry, ArrayDataModule)
    return "" if fits else f"{entry!r} is no subclass of wdsearch.ArrayDataModule"


DATASETS: Table[type[ArrayDataModule]] = Table(
    "datasets",
    {
        "mnist1d": MNIST1D,
        "digits": Digits,
        "breast_cancer": BreastCancer,
        "diabetes": Diabetes,
        "table": TableData,
        "images": ImageFolder,
        "torchvision": TorchvisionData,
        "openml": OpenMLData,
    },
    _misfit,
)


__all__ = ["DATASETS", "ArrayDataModule", "Arrays", "ArraysData", "ImageFolder", "TableData"]
