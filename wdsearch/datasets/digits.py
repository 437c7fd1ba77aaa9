"""Data set of handwritten digits in 8×8 pixels, from scikit-learn."""

from sklearn.datasets import load_digits

from wdsearch.datasets._base import ArrayDataModule, Arrays


class Digits(ArrayDataModule):
    """1,797 rows, 64 features, 10 classes (Alpaydin & Kaynak 1998)."""

    row_shape = (1, 8, 8)

    def arrays(self) -> Arrays:
        return Arrays(*load_digits(return_X_y=True))
