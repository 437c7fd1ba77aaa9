"""Optuna's samplers and pruners by name, and asking them so that the same study asks the same again."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from wdsearch.noise import derive_seed
from wdsearch.optuna_private import PointSampler

SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
    "qmc": QMCSampler,
    "cmaes": CmaEsSampler,
    "gp": GPSampler,
}


# what wdsearch sets itself, and what only Python can say
NOT_OPTIONS = {"seed", "epochs", "constraints_func", "gamma", "weights", "independent_sampler", "source_trials"}


def options_of(made: type[BaseSampler] | type[BasePruner]) -> dict[str, str]:
    """The options that a study file may give, by name, and their annotations."""
    parameters = inspect.signature(made).parameters
    return {
        name: inspect.formatannotation(parameter.annotation).strip("'")
        for name, parameter in parameters.items()
        if name not in NOT_OPTIONS
    }


def make_sampler(name: str, options: Mapping[str, Any], seed: int, slot: int) -> BaseSampler:
    """A sampler by name, for one ask. QMC is one sequence for the whole study, of which the slot names the point."""
    own_seed = derive_seed(seed, "ask", slot) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "qmc":
            defaults = {"scramble": True, "independent_sampler": RandomSampler(own_seed)}
            sampler = PointSampler(**defaults | dict(options), seed=seed % 2**32)  # type: ignore[arg-type]
            sampler.point = slot
            return sampler
        return SAMPLERS[name](**options, seed=own_seed)  # type: ignore[call-arg]
