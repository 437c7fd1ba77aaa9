"""Data set MNIST-1D (Greydanus & Kobak 2011.14439), generated locally."""

from functools import lru_cache

import numpy as np

from wdsearch.datasets._base import ArrayDataModule, Arrays, _split


@lru_cache(maxsize=1)
def _generated() -> tuple[Arrays, Arrays]:
    """The published 4,000 training and 1,000 test rows; NumPy's and Python's global generators are left as they were."""
    import random

    from mnist1d.data import get_dataset_args, make_dataset

    states = np.random.get_state(), random.getstate()
    rows = make_dataset(get_dataset_args())
    np.random.set_state(states[0])
    random.setstate(states[1])
    return Arrays(rows["x"], rows["y"]), Arrays(rows["x_test"], rows["y_test"])


class MNIST1D(ArrayDataModule):
    """40 features, 10 classes; 3,200 training, 800 validation and the published 1,000 test rows."""

    row_shape = (1, 40)

    def splits(self) -> dict[str, Arrays]:
        rest, test = _generated()
        train, validation = _split(rest, self.validation, self.split_seed, self.task)
        return {"train": train, "validation": validation, "test": test}
