"""Data of openml.org's tables, by name or number."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wdsearch.datasets.table import TableData
from wdsearch.errors import DataError

if TYPE_CHECKING:  # pandas takes half a second
    from wdsearch.datasets.frames import Table
    from wdsearch.datasets.tables.csv_files import Facts


class OpenMLData(TableData):
    """A table of openml.org by its name, or number: `credit-g`, `31`; downloaded once, into `root` or scikit-learn's folder.

    `target` is by default the column that openml.org names. The other arguments are those of `TableData`.
    """

    def __init__(
        self,
        dataset: str | int,
        version: int | None = None,
        target: str | Sequence[str] | None = None,
        root: str | Path | None = None,
        drop: Sequence[str] = (),
        numbers: Sequence[str] = (),
        categories: Sequence[str] = (),
        missing: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        split: Mapping[str, Any] | None = None,
        validation: float = 0.2,
        test: float = 0.2,
        class_weight: str | Mapping[Any, float] | None = None,
        min_frequency: int = 5,
        batch_size: int = 100,
        in_memory: bool | None = None,
        split_seed: int = 0,
        seed: int = 0,
        task: str | None = None,
        codes: bool = False,
        folder: Path | None = None,
    ) -> None:
        super().__init__(
            "", target or "", drop, numbers, categories, missing=missing, split=split, validation=validation, test=test,
            class_weight=class_weight, min_frequency=min_frequency, batch_size=batch_size, in_memory=in_memory,
            split_seed=split_seed, seed=seed, task=task, codes=codes,
        )  # fmt: skip
        self.dataset, self.version = dataset, version
        self.root = None if root is None else str(Path(folder or "", root))

    def table(self) -> tuple[Table, Facts]:
        """Fetch all rows."""
        from wdsearch.datasets.tables.csv_files import Facts
        from wdsearch.datasets.tables.gaps import without_missing

        frame, default_target = _fetched(self.dataset, self.version, self.root)
        if not any(self.targets) and default_target is None:
            columns = ", ".join(frame.columns)
            raise DataError(f"openml.org names no target of {self.dataset}; give one: it has {columns}")
        self.targets = self.targets if any(self.targets) else (str(default_target),)
        return without_missing(frame, self.reading), Facts()


def _fetched(dataset: str | int, version: int | None, root: str | None) -> tuple[Any, str | None]:
    """Whole table, and the name of its target."""
    from sklearn.datasets import fetch_openml

    number = int(dataset) if str(dataset).isdigit() else None
    query = {"data_id": number} if number is not None else {"name": dataset, "version": version or "active"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # several versions of a name: the oldest active one is taken
            bunch = fetch_openml(**query, data_home=root, as_frame=True, parser="auto")
    except OSError as error:  # URLError and HTTPError are OSErrors
        text = f"cannot be downloaded from openml.org: {error}"
        raise DataError(f"{dataset} {text}; run where there is a network, or give a root that holds it") from error
    except ValueError as error:
        raise DataError(f"openml.org: {error}") from error
    names = bunch.target_names or []
    return bunch.frame, names[0] if len(names) == 1 else None
