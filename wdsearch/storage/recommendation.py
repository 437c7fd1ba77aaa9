"""Settings of the best trial for one's own training: computed, or read as they were stored at the study's end."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from wdsearch.groups import group_key, group_name, split_key
from wdsearch.storage.attributes import FACTS, INERT, RATE_SUM, RECOMMENDATION, TARGET
from wdsearch.storage.results import StudyResult, winner
from wdsearch.trial.result import Result


def recommendation(result: StudyResult) -> dict[str, Any]:
    """Settings for one's own training: rate and strengths by key, the network's arguments, what to pass to torch.

    `epochs` are the planned ones, with which the schedule ends. `torch.manual_seed(init_seed)` before the network is built
    gives the trial's initial weights. A user-defined LightningModule is recommended its arguments. `target` has mean and scale by
    which the targets of a regression were standardised: losses and penalties (l2, l1) are those of (y − mean) / scale. Of a study
    that has ended this reads what its last worker stored, and does not wait for torch.
    Raises StudyNotFoundError while no trial is complete.
    """
    stored = _stored(result)
    return dict(stored["settings"]) if stored else _computed(result, _facts(result))


def recommended_text(result: StudyResult, facts: Mapping[str, Any] | None = None) -> str:
    """Python text that trains as the best trial was trained, in plain torch, or by Lightning's Trainer for a LightningModule.

    Empty if the storage does not hold the `facts` that it takes (`wdsearch.search.training_facts`), and they are not given.
    Raises StudyNotFoundError while no trial is complete.
    """
    stored = _stored(result)
    if facts is None and stored and "text" in stored:
        return str(stored["text"])
    return _text(result, facts or _facts(result))


def store_recommendation(result: StudyResult, facts: Mapping[str, Any]) -> None:
    """Store the recommendation and its text with the study, for this version of wdsearch and this best trial.

    Raises StudyNotFoundError while no trial is complete.
    """
    stored = {"version": version("wdsearch"), "settings": _computed(result, facts), "text": _text(result, facts)}
    result.optuna_study.set_user_attr(RECOMMENDATION, stored)


def _stored(result: StudyResult) -> Mapping[str, Any]:
    """What was stored for this version and the present best trial; empty if nothing was."""
    stored = result.optuna_study.user_attrs.get(RECOMMENDATION, {})
    current = stored.get("version") == version("wdsearch") and stored["settings"]["trial"] == winner(result).number
    return stored if current else {}


def _facts(result: StudyResult) -> Mapping[str, Any]:
    """Facts of the best trial's training, stored when it became the best one."""
    number = winner(result).number
    trials = {trial.number: trial for trial in result.optuna_study.get_trials(deepcopy=False)}
    return dict(trials[number].user_attrs.get(FACTS, {}))


def _computed(result: StudyResult, facts: Mapping[str, Any]) -> dict[str, Any]:
    best = winner(result)
    from wdsearch.noise import derive_seed

    reached = dict(zip(result.goals, best.values, strict=True))
    reached |= {name: best.result.metrics[name] for name in ("gap",) if name in best.result.metrics}
    head = {"study": result.study, "trial": best.number, **reached, **_length(result, best.result, facts)}
    head["init_seed"] = derive_seed(result.config.get("seed", 0), "weights")
    if not result.metric:
        rate = {"lr": best.result.lr} if "lr" in result.config["space"] else {}
        return head | {"init_args": rate | best.result.strengths | best.result.model}
    settings = head | _settings(result, best.result)
    return dict(json.loads(json.dumps(settings)))  # as the storage returns them, without tuples


def _length(result: StudyResult, best: Result, facts: Mapping[str, Any]) -> dict[str, int]:
    """Epochs that were planned, and those trained if they are fewer; batches and rows as far as they are known."""
    planned = result.config.get("budget", {}).get("epochs", best.epochs)
    length = {"epochs": planned} | ({"epochs trained": best.epochs} if best.epochs != planned else {})
    length |= {"weights of epoch": best.best_epoch} if best.best_epoch else {}
    known = {name: facts[name] for name in ("batch_size", "steps_per_epoch") if name in facts}
    return length | known | ({"steps": planned * known["steps_per_epoch"]} if "steps_per_epoch" in known else {})


def _settings(result: StudyResult, best: Result) -> dict[str, Any]:
    """Optimizer, strengths and network of a trial of a network, each with what to pass to torch."""
    from wdsearch.optimizers import OPTIMIZERS
    from wdsearch.regularizers import torch_equivalents

    optimizer, inert = _optimizer(result, best), result.optuna_study.user_attrs.get(INERT, [])
    record = OPTIMIZERS[optimizer["name"]]
    options = {name: optimizer[name] for name in record.options}
    effective = {key: value for key, value in best.strengths.items() if key not in inert}
    acting, timescales = _acting(effective), _timescales(effective, best.lr, result)
    return {
        "optimizer": optimizer,
        "strengths": acting,
        "off": sorted(effective.keys() - acting.keys()),
        **({"timescale": timescales} if timescales else {}),
        **({"without effect": sorted(inert)} if inert else {}),
        "model": best.model,
        **({"target": target} if (target := result.optuna_study.user_attrs.get(TARGET)) else {}),
        "torch": {"lr": record.call(best.lr, options)} | torch_equivalents(effective, record.words),
        **({"groups": groups} if (groups := _groups(result.config["space"])) else {}),
    }


def _optimizer(result: StudyResult, best: Result) -> dict[str, Any]:
    """The optimizer with all its options and the schedule, defaults included; its `lr` is the trial's."""
    from wdsearch.optimizers import DEFAULT, OPTIMIZERS

    written = result.config.get("optimizer", {})
    name = written.get("name", DEFAULT)
    own = {key: written[key] for key in OPTIMIZERS[name].options if written.get(key) is not None}
    schedule = {"schedule": "constant", "warmup": 0.0}
    return {"name": name} | OPTIMIZERS[name].complete(own) | schedule | written | {"lr": best.lr}


def _acting(strengths: Mapping[str, float]) -> dict[str, float]:
    from wdsearch.regularizers import neutral

    return {key: value for key, value in strengths.items() if value != neutral(key)}


def _timescales(strengths: Mapping[str, float], lr: float, result: StudyResult) -> dict[str, float]:
    """Time in training lengths in which decay alone shrinks a weight by e, by the key of each decoupled decay."""
    from wdsearch.regularizers import REGULARIZERS

    rate_sum = result.optuna_study.user_attrs.get(RATE_SUM, 0.0)
    decays = {key: value for key, value in _acting(strengths).items() if REGULARIZERS[split_key(key)[0]].decay}
    return {key: 1.0 / (lr * rate_sum * value) for key, value in decays.items()} if rate_sum else {}


def _groups(space: Mapping[str, Any]) -> dict[str, str]:
    """The regular expression of each group by its strength's key, in the order in which they are tried."""
    groups_of = {key: entry.get("groups") or () for key, entry in space.items() if isinstance(entry, Mapping)}
    return {
        group_key(key, group.get("name") or group_name(group["match"])): group["match"]
        for key, groups in groups_of.items()
        for group in groups
    }


def _text(result: StudyResult, facts: Mapping[str, Any]) -> str:
    """Text of the best trial's training; empty if its facts do not suffice."""
    from wdsearch.noise import derive_seed
    from wdsearch.storage.training import Training
    from wdsearch.storage.training_text import module_text, training_text

    best, seed = winner(result), derive_seed(result.config.get("seed", 0), "weights")
    goals = ", ".join(f"{name} {value:.6g}" for name, value in zip(result.goals, best.values, strict=True))
    title = f"{result.study}: trial {best.number} ({goals})"
    if "module" in facts:
        return module_text(title, seed, facts["module"])
    if "members" not in facts:
        return ""
    inert = result.optuna_study.user_attrs.get(INERT, [])
    acting = {key: value for key, value in _acting(best.result.strengths).items() if key not in inert}
    epochs, precision = result.config["budget"]["epochs"], result.config.get("trainer", {}).get("precision", 32)
    return training_text(
        Training(title, seed, _optimizer(result, best.result), acting, best.result.model, epochs, precision, facts)
    )
