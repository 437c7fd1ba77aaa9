"""Data set of the progression of diabetes, from scikit-learn."""

from sklearn.datasets import load_diabetes

from wdsearch.datasets._base import ArrayDataModule, Arrays


class Diabetes(ArrayDataModule):
    """442 rows, 10 features, one target (Efron et al. 2004); losses are in units of the target's training variance."""

    task = "regression"
    metric = "r2"

    def arrays(self) -> Arrays:
        return Arrays(*load_diabetes(return_X_y=True))
