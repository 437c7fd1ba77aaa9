"""A table of the user's: a CSV or Parquet file, or a DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wdsearch.datasets._base import ArrayDataModule, Arrays
from wdsearch.datasets._splits import split_rows
from wdsearch.errors import DataError

if TYPE_CHECKING:  # pandas takes half a second
    import pandas as pd


class TableData(ArrayDataModule):
    """Columns of a CSV or Parquet file: numbers standardised, categories one-hot or embedded, gaps filled.

    `path` is a file, seen from the study's folder, or a DataFrame. All preprocessing is fitted to the training rows: a missing
    number becomes their median, and a column says where that was done; a missing category is a category; categories of
    fewer than `min_frequency` training rows, and unseen ones, are one category together. `drop` leaves columns out,
    `numbers` and `categories` say what a column is where that could be misread.

    `split` is one of `{stratify: true}` (classes in equal shares: the default; or a column's name, or false), `{group: COLUMN}`
    (rows of a group stay in one part) and `{time: COLUMN}` (trained on the earliest, tested on the latest rows).
    `class_weight` is `balanced`, or a weight for each class: see `torch.nn.CrossEntropyLoss(weight=...)`.
    With `codes`, batches are (numbers, category numbers, targets), `categories` counting each column's values.

    Raises DataError for a table of which that cannot be made.
    """

    task = None  # type: ignore[assignment]  # the target says
    metric = None  # type: ignore[assignment]
    from_study = ("task", "codes", "folder")

    def __init__(
        self,
        path: str | Path | pd.DataFrame,
        target: str,
        drop: Sequence[str] = (),
        numbers: Sequence[str] = (),
        categories: Sequence[str] = (),
        separator: str | None = None,
        split: Mapping[str, Any] | None = None,
        validation: float = 0.2,
        test: float = 0.2,
        class_weight: str | Mapping[Any, float] | None = None,
        min_frequency: int = 5,
        batch_size: int = 100,
        split_seed: int = 0,
        seed: int = 0,
        task: str | None = None,
        codes: bool = False,
        folder: Path | None = None,
    ) -> None:
        super().__init__(split_seed, seed, batch_size)
        self.path = Path(folder or "", path) if isinstance(path, str | Path) else path
        self.target, self.drop, self.named = target, tuple(drop), (tuple(numbers), tuple(categories))
        self.separator, self.split, self.validation, self.test = separator, dict(split or {}), validation, test
        self.class_weight, self.min_frequency, self.asked, self.codes = class_weight, min_frequency, task, codes

    def splits(self) -> dict[str, Arrays]:
        """Read the table, decide what its columns and its target are, and split it."""
        from wdsearch import tables

        frame = tables.read_frame(self.path, self.separator) if isinstance(self.path, Path) else self.path
        self._check_names(frame)
        frame = tables.rows_with_target(frame, self.target).reset_index(drop=True)
        asked = tables.target_of(frame[self.target], self.asked)
        self.task, self.metric, self.classes = asked.task, asked.metric, asked.classes
        by = next((name for name in self.split.values() if isinstance(name, str)), None)
        unused = {self.target, *self.drop, *((by,) if by and "stratify" not in self.split else ())}
        self.columns = tables.columns_of(frame.drop(columns=list(unused)), *self.named)
        self._check_columns(frame)
        self.about = self._about(tables.summary(self.target, asked, self.columns, len(frame)))
        targets = asked.encoded(frame[self.target])
        stratify = targets if self.task == "classification" else None
        parts = split_rows(frame, self.split, (self.validation, self.test), self.split_seed, stratify)
        numbers, categories = list(self.columns.numbers), list(self.columns.categories)
        inputs = frame[numbers].astype(float).join(frame[categories])
        return {name: Arrays(inputs.iloc[rows], targets[rows]) for name, rows in parts.items()}

    def _check_names(self, frame: pd.DataFrame) -> None:
        from wdsearch.tables import check_names

        check_names(frame, [self.target], "target")
        for where, names in {"drop": self.drop, "numbers": self.named[0], "categories": self.named[1]}.items():
            check_names(frame, names, where)
        check_names(frame, [name for name in self.split.values() if isinstance(name, str)], "split")

    def _check_columns(self, frame: pd.DataFrame) -> None:
        """Raise DataError for columns that somebody must decide about."""
        from wdsearch.tables import DATES, NUMBERING, check_any

        doubtful = self.columns.doubtful
        if doubtful:
            said = "; ".join(f"{name!r}: {why}" for name, why in doubtful.items())
            ways = ["leave them out by drop: [" + ", ".join(map(repr, doubtful)) + "]"]
            ways += ["turn dates into numbers, or split by them: split: {time: COLUMN}"] * (DATES in doubtful.values())
            ways += ["keep a quantity by numbers: [COLUMN]"] * (NUMBERING in doubtful.values())
            ways += ["keep a text by categories: [COLUMN]"] * any("text" in why for why in doubtful.values())
            raise DataError(f"columns of which it is not plain how to learn from them: {said}; {'; '.join(ways)}")
        numbers = frame[list(self.columns.numbers)]
        texts = [name for name in numbers if numbers[name].dtype.kind not in "iufb"]
        if texts:
            raise DataError(f"column {texts[0]!r} holds values such as {numbers[texts[0]].iloc[0]!r}, not numbers")
        infinite = [name for name in numbers if np.isinf(numbers[name].to_numpy(dtype=float)).any()]
        if infinite:
            raise DataError(f"column {infinite[0]!r} has infinite values: replace them, or leave it out by drop")
        check_any(self.columns, self.target)

    def _about(self, summary: str) -> str:
        left_out = ", ".join(f"{name} ({why})" for name, why in self.columns.useless.items())
        return f"{summary}; left out: {left_out}" if left_out else summary

    def preprocessor(self) -> Any:
        """Numbers imputed and standardised; categories one-hot, rare and unseen ones together."""
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

        imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        one_hot = OneHotEncoder(
            handle_unknown="infrequent_if_exist", min_frequency=self.min_frequency, sparse_output=False
        )
        self._transformer = ColumnTransformer(
            [
                ("numbers", make_pipeline(imputer, StandardScaler()), list(self.columns.numbers)),
                ("categories", make_pipeline(FunctionTransformer(_texts), one_hot), list(self.columns.categories)),
            ]
        )
        return self._transformer

    def encoded(self, inputs: np.ndarray) -> tuple[Tensor, ...]:
        """Numbers and one-hot categories, or numbers and category numbers."""
        sizes = self._sizes
        if not self.codes or not sizes:
            return super().encoded(inputs)
        first = inputs.shape[1] - sum(sizes)
        numbers, *blocks = np.split(inputs, np.cumsum([first, *sizes[:-1]]), axis=1)
        # 0 is what no training row had and no rare category stands for
        numbered = [np.where(block.any(1), block.argmax(1) + 1, 0) for block in blocks]
        return *super().encoded(numbers), torch.tensor(np.stack(numbered, axis=1), dtype=torch.int64)

    @property
    def _sizes(self) -> list[int]:
        """Entries of each column of categories when one-hot: those of its training rows, the rare ones as one."""
        if not self.columns.categories:
            return []
        encoder = self._transformer.named_transformers_["categories"][-1]
        rare = encoder.infrequent_categories_
        return [
            len(names) - (0 if few is None else len(few) - 1)
            for names, few in zip(encoder.categories_, rare, strict=True)
        ]

    @property
    def categories(self) -> tuple[int, ...]:
        """How many values each column of categories has, for embeddings; empty if they are one-hot."""
        self.setup()
        return tuple(size + 1 for size in self._sizes) if self.codes else ()


def _texts(columns: pd.DataFrame) -> pd.DataFrame:
    """Categories as texts, for they are compared; a missing one is a category as well."""
    return columns.astype("string").fillna("(missing)").astype(object)
