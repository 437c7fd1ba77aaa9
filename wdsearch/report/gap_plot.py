"""The picture of a study that `wdsearch plot` draws: gap and loss against a strength."""

from pathlib import Path
from typing import Any

from wdsearch.errors import WdsearchError
from wdsearch.storage.results import StudyResult, main_key, searched_keys


class NotSearchedError(WdsearchError):
    """A strength that no finished trial of the study has."""


def plot_gap(result: StudyResult, path: Path | None = None, key: str | None = None) -> Any:
    """Gap, and validation loss below it, against a strength; the matplotlib figure, written to `path` if given.

    `key` defaults to weight_decay if the study searches it, else to its first regularizer. Trials at which it is off
    stand at the end of the axis; pruned ones are pale, for their gap is that of an early epoch.
    Raises NotSearchedError for a strength that no trial has, or a study whose trials have no loss yet.
    """
    from wdsearch.report.study_charts import gap_chart  # loads torch, without which a delivery draws trials
    from wdsearch.report.texts import Texts
    from wdsearch.report.to_image import draw

    searched = searched_keys(result)
    key = key or main_key(result)
    if key not in searched:
        raise NotSearchedError(
            f"study {result.study!r} has no {key or 'regularizer'!r} to plot; it has: {', '.join(searched) or 'none'}"
        )
    figure = gap_chart(result, Texts(), key)
    if figure is None:
        raise NotSearchedError(f"study {result.study!r} has no trial with a gap or a loss to plot yet")
    return draw(figure, path)
