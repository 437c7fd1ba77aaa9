"""Begins or continues a study: its identity, and what may differ when it goes on."""

import os
import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner
from sqlalchemy.engine import Engine

from wdsearch.errors import WdsearchError
from wdsearch.storage.attributes import CONFIG, FAMILY, FIRED, FOLDER, GOALS, IDENTITY, METRIC, TOKEN, WARM
from wdsearch.storage.database import (
    forget_study,
)
from wdsearch.storage.home import Home
from wdsearch.strategies.optuna_private import study_id
from wdsearch.study.load import StudyConfig
from wdsearch.study.schema import Source

BEGINNING_DS = 100
"""Tenths of a second within which who creates a study has begun it."""


FREE = (("budget", "trials"), ("trainer", "population"), ("trainer", "threads"), ("tracking",), ("schedule",))
"""Keys that may differ when a study goes on, with all below them: how much is spent, how fast, where it is recorded, and when."""


class StudyChangedError(WdsearchError):
    """A study file that is not the one which the study of its name was begun with."""


def open_study(
    config: StudyConfig,
    home: Home,
    storage: str | None,
    pruner: BasePruner,
    metric: str,
    digest: str,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[optuna.Study, Engine]:
    """A study, begun or taken up again, and the engine of its storage; `digest` is that of its data.

    `attributes` are set on a new one, before anybody else takes it for begun.
    Raises StudyChangedError if the study of this name was begun with another file.

    >>> from tempfile import TemporaryDirectory
    >>> from wdsearch.study.load import load_study
    >>> config = load_study("studies/mnist1d.yaml")
    >>> with TemporaryDirectory() as folder:
    ...     study, engine = open_study(config, Home(folder), None, optuna.pruners.NopPruner(), "accuracy", "1a2b")
    ...     engine.dispose()
    >>> study.study_name
    'mnist1d'
    """
    opened = home.open(storage)
    try:
        study = optuna.create_study(
            storage=opened, study_name=config.study, directions=config.objective.directions, pruner=pruner
        )
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=config.study, storage=opened, pruner=pruner)
        is_new = _is_abandoned(study, config)
    else:
        forget_study(opened.engine, study_id(study))
        is_new = True
    if is_new:
        _begin(study, config, {METRIC: metric, **(attributes or {})}, digest)
    else:
        check_same(study, identity(config, digest))
        study.set_user_attr(CONFIG, config.dump())
        if TOKEN not in study.user_attrs:  # begun by an earlier version
            study.set_user_attr(TOKEN, os.urandom(4).hex())
    study.set_user_attr(FOLDER, _folder(config))
    return study, opened.engine


def _begin(study: optuna.Study, config: StudyConfig, attributes: Mapping[str, Any], digest: str) -> None:
    stored = {GOALS: config.objective.goals, CONFIG: config.dump(), **attributes}
    stored |= {TOKEN: os.urandom(4).hex()}  # tells it from a later study of this name
    for name, value in stored.items():
        study.set_user_attr(name, value)
    study.set_user_attr(IDENTITY, identity(config, digest))  # the last one: with it the study is begun


def _folder(config: StudyConfig) -> str | None:
    """Folder of the study's file, in which own modules and tables are looked for; None if it does not come from a file."""
    folders = [part.folder for part in (config.data, config.model) if isinstance(part, Source)]
    return next((str(folder) for folder in folders if folder), None)


def identity(config: StudyConfig, digest: str) -> dict[str, Any]:
    """Every key of a study with its value, given or by default, but those that are `FREE`; and the digest of its data.

    >>> from wdsearch.study.load import load_study
    >>> begun = identity(load_study("studies/mnist1d.yaml"), digest="1a2b")
    >>> begun["budget.epochs"], "budget.trials" in begun, begun["data (digest)"]
    (40, False, '1a2b')
    """
    leaves = _leaves(config.dump(defaults=True))
    fixed = {
        ".".join(path): value for path, value in leaves.items() if not any(path[: len(free)] == free for free in FREE)
    }
    return fixed | {"data (digest)": digest}


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {location: leaf for key, item in value.items() for location, leaf in _leaves(item, (*path, key)).items()}


def check_same(study: optuna.Study, now: dict[str, Any]) -> None:
    """Raise StudyChangedError if a study was begun with another identity.

    >>> study = optuna.create_study(study_name="digits")
    >>> study.set_user_attr(IDENTITY, {"seed": 0})
    >>> try:
    ...     check_same(study, {"seed": 1})
    ... except StudyChangedError as error:
    ...     print(error)
    study 'digits' was begun with another file; since then changed:
      seed: 0 -> 1
    give the changed study its own name (study: ..., or --set study=NAME), or undo the change
    """
    begun = _identity_of(study)
    changed = sorted(key for key in begun.keys() | now.keys() if begun.get(key) != now.get(key))
    if changed:
        lines = [f"  {key}: {begun.get(key, 'absent')} -> {now.get(key, 'absent')}" for key in changed]
        text = f"study {study.study_name!r} was begun with another file; since then changed:"
        hint = "give the changed study its own name (study: ..., or --set study=NAME), or undo the change"
        raise StudyChangedError("\n".join([text, *lines]), hint)


def _is_abandoned(study: optuna.Study, config: StudyConfig) -> bool:
    """True for a study whose creator died before it was begun; a moment is left to one who has just created it."""
    for _ in range(BEGINNING_DS):
        if IDENTITY in study.user_attrs:
            return False
        time.sleep(0.1)
    ours = set(study.user_attrs) <= {GOALS, METRIC, CONFIG, TOKEN, FAMILY, FIRED, WARM} and not study.get_trials(
        deepcopy=False
    )
    return ours and [direction.name.lower() for direction in study.directions] == config.objective.directions


def _identity_of(study: optuna.Study) -> dict[str, Any]:
    if IDENTITY in study.user_attrs:
        return dict(study.user_attrs[IDENTITY])
    raise StudyChangedError(f"study {study.study_name!r} was not made by wdsearch; choose another name")
