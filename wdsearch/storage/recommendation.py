"""Settings of the best trial for one's own training: computed, or read as they were stored at the study's end."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from wdsearch.groups import group_key, group_name
from wdsearch.storage.attributes import INERT, RECOMMENDATION, TARGET
from wdsearch.storage.results import StudyResult, winner


def recommendation(result: StudyResult) -> dict[str, Any]:
    """Settings for one's own training: rate and strengths by key, the network's arguments, what to pass to torch.

    `torch.manual_seed(init_seed)` before the network is built gives the trial's initial weights. A user-defined
    LightningModule is recommended its arguments. `target` has mean and scale by which the targets of a regression were
    standardised: losses and penalties (l2, l1) are those of (y − mean) / scale.
    Of a study that has ended this reads what its last worker stored, and does not wait for torch.
    Raises StudyNotFoundError while no trial is complete.
    """
    stored = result.optuna_study.user_attrs.get(RECOMMENDATION, {})
    if stored.get("version") == version("wdsearch") and stored["settings"]["trial"] == winner(result).number:
        return dict(stored["settings"])
    return _computed(result)


def store_recommendation(result: StudyResult) -> None:
    """Store the recommendation with the study, for this version of wdsearch and this best trial."""
    if result.best is not None:
        stored = {"version": version("wdsearch"), "settings": _computed(result)}
        result.optuna_study.set_user_attr(RECOMMENDATION, stored)


def _computed(result: StudyResult) -> dict[str, Any]:
    best = winner(result)
    from wdsearch.noise import derive_seed
    from wdsearch.optimizers import DEFAULT, OPTIMIZERS
    from wdsearch.regularizers import neutral, torch_equivalents

    settings, optimizer = best.result, result.config.get("optimizer", {})
    name = optimizer.get("name", DEFAULT)
    record = OPTIMIZERS[name]
    options = {option: optimizer[option] for option in record.options if optimizer.get(option) is not None}
    inert = result.optuna_study.user_attrs.get(INERT, [])
    effective = {key: value for key, value in settings.strengths.items() if key not in inert}
    acting = {key: value for key, value in effective.items() if value != neutral(key)}
    reached = dict(zip(result.goals, best.values, strict=True))
    reached |= {name: settings.metrics[name] for name in ("gap",) if name in settings.metrics}
    head = {"study": result.study, "trial": best.number, **reached, "epochs": settings.epochs}
    head["init_seed"] = derive_seed(result.config.get("seed", 0), "weights")
    if not result.metric:
        rate = {"lr": settings.lr} if "lr" in result.config["space"] else {}
        return head | {"init_args": rate | settings.strengths | settings.model}
    settings_by_part = {
        **head,
        "optimizer": {"name": name} | optimizer | {"lr": settings.lr},
        "strengths": acting,
        "off": sorted(effective.keys() - acting.keys()),
        **({"without effect": sorted(inert)} if inert else {}),
        "model": settings.model,
        **({"target": target} if (target := result.optuna_study.user_attrs.get(TARGET)) else {}),
        "torch": {"lr": record.call(settings.lr, options)} | torch_equivalents(effective, record.words),
        **({"groups": groups} if (groups := _groups(result.config["space"])) else {}),
    }
    return dict(json.loads(json.dumps(settings_by_part)))  # as the storage returns them, without tuples


def _groups(space: Mapping[str, Any]) -> dict[str, str]:
    """The regular expression of each group by its strength's key, in the order in which they are tried."""
    groups_of = {key: entry.get("groups") or () for key, entry in space.items() if isinstance(entry, Mapping)}
    return {
        group_key(key, group.get("name") or group_name(group["match"])): group["match"]
        for key, groups in groups_of.items()
        for group in groups
    }
