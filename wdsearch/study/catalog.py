"""Names that a study file can use, from regularizers to pruners, with their arguments, from tables and docstrings."""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.optimizers import OPTIMIZERS, Optimizer
from wdsearch.regularizers import REGULARIZERS, Regularizer
from wdsearch.strategies.pruners import PRUNERS
from wdsearch.strategies.samplers import SAMPLERS, options_of
from wdsearch.study.annotations import allowed, annotation_of, keyword_only
from wdsearch.study.sources import given_to, parameters_of

NEEDED = inspect.Parameter.empty
# what wdsearch gives where Optuna's own default is another, or depends on the study
_DEFAULTS: dict[str, dict[str, Any]] = {
    "qmc": {"scramble": True},
    "median": {"n_warmup_steps": "epochs/4", "interval_steps": "epochs/8"},
    "halving": {"min_resource": "epochs/4"},
    "hyperband": {"min_resource": "epochs/4"},
}
_LINK = re.compile(r"`([^<`]+?) <[^>]*>`__")


@dataclass(frozen=True)
class Argument:
    """One argument of what can be named; `default` is NEEDED if there is none, None if it is chosen by what it is for."""

    name: str
    annotation: str
    default: Any

    def as_dict(self) -> dict[str, Any]:
        """Record for JSON."""
        record: dict[str, Any] = {"name": self.name, "takes": allowed(self.annotation)}
        return record if self.default is NEEDED else record | {"default": as_json(self.default)}


def as_json(default: Any) -> Any:
    """A default as JSON can hold it.

    >>> as_json((0.9, 0.999)), as_json(True)
    ([0.9, 0.999], True)
    """
    return list(default) if isinstance(default, tuple) else default


def arguments(builder: Callable[..., Any]) -> list[Argument]:
    """The arguments of a model or data set that a study file may give.

    >>> [argument.name for argument in arguments(MODELS["mlp"])]
    ['hidden', 'activation', 'norm', 'dropout']
    """
    parameters, reserved = parameters_of(builder).items(), given_to(builder)
    return [Argument(name, annotation_of(p), p.default) for name, p in parameters if name not in reserved]


def keyword_arguments(kind: Callable[..., Any]) -> list[Argument]:
    """The options of a tracker that a study file may give: its constructor's keyword-only arguments.

    >>> def tracker(home, *, folder: str = "records"): ...
    >>> keyword_arguments(tracker)
    [Argument(name='folder', annotation='str', default='records')]
    """
    parameters = parameters_of(kind)
    return [Argument(name, text, parameters[name].default) for name, text in keyword_only(kind).items()]


def options(name: str, kind: type) -> list[Argument]:
    """The options of a sampler or pruner that a study file may give.

    >>> {option.name: option.default for option in options("median", PRUNERS["median"])}["n_warmup_steps"]
    'epochs/4'
    """
    parameters, own = parameters_of(kind), _DEFAULTS.get(name, {})
    return [Argument(key, text, own.get(key, parameters[key].default)) for key, text in options_of(kind).items()]


def catalog() -> dict[str, list[dict[str, Any]]]:
    """All that can be named, as JSON can hold it: ∞ is the text `inf`.

    >>> [entry["name"] for entry in catalog()["samplers"]]
    ['tpe', 'random', 'qmc', 'cmaes', 'gp']
    """
    return {
        "regularizers": [_strength(regularizer) for regularizer in REGULARIZERS.values()],
        "optimizers": [_optimizer(optimizer) for optimizer in OPTIMIZERS.values()],
        "models": [_entry(name, builder, arguments(builder)) for name, builder in MODELS.items()],
        "data": [_data_set(name, builder) for name, builder in DATASETS.items()],
        "samplers": [_entry(name, builder, options(name, builder)) for name, builder in SAMPLERS.items()],
        "pruners": [_entry(name, builder, options(name, builder)) for name, builder in PRUNERS.items()],
    }


def _strength(regularizer: Regularizer) -> dict[str, Any]:
    return {
        "name": regularizer.key,
        "summary": regularizer.summary,
        "unit": regularizer.unit,
        "off": "inf" if regularizer.neutral == math.inf else regularizer.neutral,
        "allowed": str(regularizer.domain),
        "whole": regularizer.integer,
        "usual": regularizer.usual._asdict(),
        "tasks": list(regularizer.tasks),
    }


def _optimizer(optimizer: Optimizer) -> dict[str, Any]:
    options = [
        {"name": name, "takes": str(option), "default": as_json(option.default), "about": option.about}
        for name, option in optimizer.options.items()
    ]
    return {"name": optimizer.key, "summary": optimizer.summary, "arguments": options}


def _entry(name: str, builder: Callable[..., Any], listed: list[Argument]) -> dict[str, Any]:
    return {"name": name, "summary": _summary(builder), "arguments": [argument.as_dict() for argument in listed]}


def _data_set(name: str, builder: Any) -> dict[str, Any]:
    return _entry(name, builder, arguments(builder)) | {"task": builder.task, "metric": builder.metric}


def _summary(builder: Callable[..., Any]) -> str:
    """The first line of a docstring, without markup and full stop."""
    line = (inspect.getdoc(builder) or "").partition("\n")[0]
    return _LINK.sub(r"\1", line).replace("`", "").rstrip(".")


def first_sentence(text: str) -> str:
    """A summary's first sentence; `et al. 2014` ends none.

    >>> first_sentence("Dropout by Srivastava et al. 2014. Rates lie in [0, 1).")
    'Dropout by Srivastava et al. 2014'
    """
    return re.split(r"\.\s(?=[A-Z])", text, maxsplit=1)[0].rstrip(".")
