"""Data set of breast cancer diagnoses, from scikit-learn."""

from sklearn.datasets import load_breast_cancer

from wdsearch.datasets._base import ArrayDataModule, Arrays


class BreastCancer(ArrayDataModule):
    """569 rows, 30 collinear features, 2 classes of unequal size (Street, Wolberg & Mangasarian 1993)."""

    metric = "balanced_accuracy"

    def arrays(self) -> Arrays:
        return Arrays(*load_breast_cancer(return_X_y=True))
