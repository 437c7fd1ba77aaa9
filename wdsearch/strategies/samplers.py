"""Optuna's samplers by name, seeded so that a study that is run again asks for the same trials."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from wdsearch.noise import derive_seed
from wdsearch.strategies.optuna_private import PointSampler

SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
    "qmc": QMCSampler,
    "cmaes": CmaEsSampler,
    "gp": GPSampler,
}


# set by wdsearch itself, or not expressible in YAML
NOT_OPTIONS = {"seed", "epochs", "constraints_func", "gamma", "weights", "independent_sampler", "source_trials"}


def options_of(strategy: type[BaseSampler] | type[BasePruner]) -> dict[str, str]:
    """Options that a study file may give a sampler or pruner, by name, with their annotations.

    >>> options_of(QMCSampler)["scramble"]
    'bool'
    """
    parameters = inspect.signature(strategy).parameters
    return {
        name: inspect.formatannotation(parameter.annotation).strip("'")
        for name, parameter in parameters.items()
        if name not in NOT_OPTIONS
    }


def make_sampler(name: str, options: Mapping[str, Any], seed: int, slot: int) -> BaseSampler:
    """Build a sampler by name, for one ask. QMC is one sequence for the whole study; the slot is the index of its point.

    >>> type(make_sampler("tpe", {"n_startup_trials": 4}, seed=0, slot=7)).__name__
    'TPESampler'
    """
    own_seed = derive_seed(seed, "ask", slot) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "qmc":
            defaults = {"scramble": True, "independent_sampler": RandomSampler(own_seed)}
            sampler = PointSampler(**defaults | dict(options), seed=seed % 2**32)  # type: ignore[arg-type]
            sampler.point = slot
            return sampler
        return SAMPLERS[name](**options, seed=own_seed)  # type: ignore[call-arg]
