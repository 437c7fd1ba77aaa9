"""Recognition of a study's model: a network, a trial of ours, or a user's LightningModule with a Trainer of its own."""

import functools
import inspect
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from wdsearch.population.user.framework import is_lightning_module, lightning_base
from wdsearch.population.user.random_state import seeded
from wdsearch.trial.module import RegularizedModule

HARMLESS = ("test", "predict")
"""Parts of the names of hooks that act after a training."""
STEPS = (
    "training_step", "validation_step", "configure_optimizers", "optimizer_step", "optimizer_zero_grad", "backward",
    "manual_backward", "configure_gradient_clipping", "lr_scheduler_step", "configure_callbacks", "clip_gradients",
)  # fmt: skip


def product_of(builder: Any) -> Any:
    """Class that a class, `functools.partial` or annotated function builds; None if nothing says it.

    >>> import lightning as L
    >>> def build(lr: float) -> L.LightningModule: ...
    >>> product_of(functools.partial(build, lr=0.1)).__name__, product_of(len)
    ('LightningModule', None)
    """
    while isinstance(builder, functools.partial):
        builder = builder.func
    if inspect.isclass(builder):
        return builder
    try:
        product = typing.get_type_hints(builder).get("return")
    except Exception:  # an annotation may name anything
        return None
    return product if inspect.isclass(product) else None


def is_regularized_module(builder: Any) -> bool:
    """True for a subclass of `RegularizedModule`, or a partial of one, which builds whole trials; itself it needs a network.

    >>> is_regularized_module(type("Own", (RegularizedModule,), {})), is_regularized_module(RegularizedModule)
    (True, False)
    """
    while isinstance(builder, functools.partial):
        builder = builder.func
    return inspect.isclass(builder) and issubclass(builder, RegularizedModule) and builder is not RegularizedModule


def builds_lightning_module(builder: Any) -> bool:
    """True for what builds user-defined LightningModules: by its class or annotation, else by a try.

    A function without an annotation is tried, once, if it names a LightningModule class.

    >>> import lightning as L
    >>> builds_lightning_module(L.LightningModule), builds_lightning_module(nn.Linear)
    (True, False)
    """
    if builder is None or isinstance(builder, nn.Module):
        return False
    product = product_of(builder)
    if product is not None:
        return lightning_base(product, "LightningModule") is not None and not issubclass(product, RegularizedModule)
    return _names_lightning_module(builder) and _gives_lightning_module(builder)


def _names_lightning_module(builder: Any) -> bool:
    while isinstance(builder, functools.partial):
        builder = builder.func
    function = inspect.unwrap(builder) if inspect.isfunction(builder) else vars(type(builder)).get("__call__")
    return inspect.isfunction(function) and any(
        lightning_base(value, "LightningModule") is not None for value in _named(function)
    )


def _named(function: Any) -> Iterator[Any]:
    """Objects that a function's code names, those of modules by their attributes too."""
    code, names = function.__code__, function.__globals__
    held = [names[name] for name in code.co_names if name in names]
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # empty so far
            continue
    yield from held
    for value in held:
        yield from (getattr(value, name, None) for name in code.co_names if inspect.ismodule(value))
        if inspect.isfunction(value) and value is not function and value.__module__ == function.__module__:
            yield product_of(value)
            yield from (value.__globals__.get(name) for name in value.__code__.co_names)


_tried: dict[int, tuple[Any, bool]] = {}
"""Functions that were tried, by id, so that each is tried once."""
_SIZES = {"inputs": 2, "outputs": 2, "shape": (2,), "categories": ()}


def _gives_lightning_module(builder: Callable[..., Any]) -> bool:
    if id(builder) not in _tried:
        parameters = inspect.signature(builder).parameters
        arguments = {name: value for name, value in _SIZES.items() if name in parameters}
        needed = {
            name: 1
            for name, one in parameters.items()
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        }
        _tried[id(builder)] = builder, _try(builder, needed | arguments)
    return _tried[id(builder)][1]


def _try(builder: Callable[..., Any], arguments: dict[str, Any]) -> bool:
    try:
        with seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            built = builder(**arguments)
    except Exception:  # whatever a user's function raises; what it gives is looked at when a trial is built
        return False
    return is_lightning_module(built) and not isinstance(built, RegularizedModule)


# -- what cannot be trained -------------------------------------------------------------------------------------------


def why_refused(model: Any, builder: Any) -> str | None:
    """Reason why a model cannot be searched though it can be built, with the remedy; None if it can.

    >>> import lightning as L
    >>> why_refused(L.LightningModule(), None)
    "model is a LightningModule object; give its class, LightningModule: its constructor's arguments are the search space, ..."
    """
    network = next((one for one in (model, builder) if isinstance(one, nn.Module)), None)
    if isinstance(network, RegularizedModule):
        kind = type(network)
        remedy = (
            "its network, as an object or by what builds it"
            if kind is RegularizedModule
            else f"its class, {kind.__name__}"
        )
        return f"model is a {kind.__name__} object, whose strengths are set already; give {remedy}"
    if network is not None and is_lightning_module(network):
        name = type(getattr(network, "_orig_mod", network)).__name__
        return (
            f"model is a {name} object; give its class, {name}: its constructor's arguments are the search space, and "
            f"each trial is a new one"
        )
    if network is not None and network is builder:
        return f"model.class_path names an object of {type(network).__name__}; give its class, or a function that builds it"
    if is_regularized_module(builder):
        return _unheard(product_of(builder))
    return _incomplete(product_of(builder)) if builds_lightning_module(builder) else None


def _unheard(kind: Any) -> str | None:
    """Reason against a subclass of RegularizedModule that overrides what is called for modules with their own Trainer only."""
    base = lightning_base(kind, "LightningModule")
    hooks = {name for owner in (base.__mro__ if base else ()) if "hooks" in owner.__module__ for name in vars(owner)}
    names = [
        name for name in (*STEPS, *sorted(hooks)) if not name.startswith("_") and not any(h in name for h in HARMLESS)
    ]
    own = [name for name in names if getattr(kind, name, None) is not getattr(RegularizedModule, name, None)]
    if not own:
        return None
    return (
        f"{kind.__name__} overrides {', '.join(own)}, which nobody calls where trials are trained together; derive it from "
        f"LightningModule to have a Trainer of its own, or override forward, loss or split instead"
    )


def _incomplete(kind: Any) -> str | None:
    """Reason against a LightningModule's class that lacks what its Trainer needs."""
    base = lightning_base(kind, "LightningModule")
    if base is None or kind is base:
        return None
    needed = {
        "training_step": "return the loss of a batch",
        "validation_step": 'log what the objective names, as in self.log("val_loss", ...)',
        "configure_optimizers": "return an optimizer",
    }
    for name, task in needed.items():
        if getattr(kind, name, None) is getattr(base, name):
            return f"{kind.__name__} has no {name}; it must {task}"
    return None
