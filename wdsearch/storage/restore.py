"""A study's configuration from its storage, for those who go on with it elsewhere or later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wdsearch.errors import WdsearchError
from wdsearch.storage.attributes import FOLDER
from wdsearch.storage.results import StudyResult
from wdsearch.study.load import StudyConfig, load_study


class NotStoredError(WdsearchError):
    """A study with objects of its Python program, which no storage holds."""


def restored(
    result: StudyResult, source: str | Path | Mapping[str, Any] | StudyConfig | None, call: str
) -> StudyConfig:
    """Configuration of a study, from `source` or as it was stored; own objects must be passed again, in the `call` named.

    Raises NotStoredError if they are not, and StudyFileError for what does not hold on this machine.

    >>> import optuna
    >>> from wdsearch.storage.attributes import CONFIG
    >>> from wdsearch.storage.results import load_result
    >>> study = optuna.create_study(study_name="mnist1d")
    >>> study.set_user_attr(CONFIG, load_study("studies/mnist1d.yaml").dump())
    >>> restored(load_result(study), None, "wdsearch.run(...)").budget.trials
    64
    """
    if source is not None:
        return load_study(source)
    objects = [key for key in ("data", "model") if not isinstance(result.config.get(key), Mapping)]
    if objects:
        text = f"study {result.study!r} was begun from Python with own objects ({', '.join(objects)}), which no storage holds"
        raise NotStoredError(f"{text}; pass them again: {call}, with what run() was given")
    return load_study(_stored_content(result), folder=_source_folder(result))


def _stored_content(result: StudyResult) -> dict[str, Any]:
    """Content of the study's file, without the names of an own sampler and pruner, which cannot be built from them."""
    search = result.config.get("search", {})
    searched = {key: value for key, value in search.items() if isinstance(value, Mapping | int)}
    return result.config | ({"search": searched} if search else {})


def _source_folder(result: StudyResult) -> Path | None:
    """Folder of the study's file, on the machine that began it."""
    folder = result.optuna_study.user_attrs.get(FOLDER)
    return Path(folder) if folder else None
