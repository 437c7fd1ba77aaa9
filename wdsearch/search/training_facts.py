"""Facts of a trial's training that its configuration does not tell, as JSON: steps, names, forms of batches and of the loss."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wdsearch.groups import split_key
from wdsearch.noise import derive_seed
from wdsearch.population.user.framework import framework_of, lightning_base
from wdsearch.population.user.model_kinds import is_regularized_module, product_of
from wdsearch.population.user.random_state import seeded
from wdsearch.regularizers import REGULARIZERS
from wdsearch.study.factory import TrialFactory
from wdsearch.study.nested import is_nested, with_values
from wdsearch.study.schema import Source
from wdsearch.study.sources import builder_of, shape_arguments
from wdsearch.study.space import Configuration
from wdsearch.tasks.task import logits_of
from wdsearch.trial.batches import Batch, first_rows, rows_of
from wdsearch.trial.dropout import MultiheadAttention
from wdsearch.trial.module import RegularizedModule

Facts = dict[str, Any]
SHOWN_ROWS = 2
"""Rows on which a network shows the form of its outputs."""


def training_facts(factory: TrialFactory, configuration: Configuration) -> Facts:
    """Facts of the training of a configuration; those that cannot be had are left out.

    `steps_per_epoch` and `batch_size` count batches and rows; `decayed` names the parameters that decay, `members` those of each
    strength's key, or the layers with their attribute; `inputs` and `loss` are forms of batches and outputs, as
    `wdsearch.storage.training_text` writes them. A LightningModule, or a subclass of RegularizedModule, has `module` instead:
    its call and its Trainer's as Python text.
    """
    with seeded(0):
        facts: Facts = {"steps_per_epoch": factory.batches} if factory.batches else {}
        parts: list[Callable[[TrialFactory, Configuration], Facts]] = [_module]
        if not _trains_itself(factory):
            parts = [_members, _forms]
        if not factory.solo:  # no row is drawn of a user's own loader but by its Trainer
            parts.append(_batch_size)
        for part in parts:
            try:
                facts |= part(factory, configuration)
            except Exception:  # whatever a user's data or network raise: the study's result does not hang on it
                continue
    return facts


def _trains_itself(factory: TrialFactory) -> bool:
    """True for a user's module that a Trainer trains as it is."""
    return factory.solo or is_regularized_module(builder_of(factory.config.model))


def _batch_size(factory: TrialFactory, _: Configuration) -> Facts:
    rows = rows_of(next(iter(factory.data.train_dataloader())))
    return {"batch_size": rows} if rows else {}


def _members(factory: TrialFactory, configuration: Configuration) -> Facts:
    module = factory.module(configuration)
    members = {key: [_member(module, key, name) for name in names] for key, names in module.members.items()}
    names = [name.removeprefix("network.") for name in module.decayed]
    return {"object": isinstance(factory.config.model, nn.Module), "decayed": names, "members": members}


def _member(module: RegularizedModule, key: str, name: str) -> str:
    """Name of a parameter, or of a layer with the attribute that takes a rate, in the user's network."""
    if REGULARIZERS[split_key(key)[0]].acts_on != "layers":
        return name.removeprefix("network.")
    outer, _, _ = name.rpartition(".")
    attention = isinstance(module.get_submodule(outer), MultiheadAttention)
    path = f"{outer}.dropout" if attention else f"{name}.p"
    return path.removeprefix("network.")


# -- forms of batches and outputs ------------------------------------------------------------------------------------


def _forms(factory: TrialFactory, configuration: Configuration) -> Facts:
    """Forms of a batch's inputs and targets, of the network's outputs, and of the loss."""
    task, module, batch = factory.task, factory.module(configuration).eval(), first_rows(factory.batch(), SHOWN_ROWS)
    inputs, targets = module.split(batch)
    with torch.no_grad():
        outputs = module(*inputs.args, **inputs.kwargs)
    short = not targets.is_floating_point() and targets.dtype != torch.int64
    loss = {"task": task.name, "class_weights": task.class_weights, "short_targets": short}
    loss |= {"loss": _loss_form(module, logits_of(outputs), targets)}
    own = {"inputs": _inputs_form(batch, inputs, targets), "floating": _floating(inputs), "outputs": _place(outputs)}
    return loss | own


def _floating(inputs: Any) -> bool:
    tensors = [value for value in (*inputs.args, *inputs.kwargs.values()) if isinstance(value, Tensor)]
    return bool(tensors) and all(value.is_floating_point() for value in tensors)


def _inputs_form(batch: Batch, inputs: Any, targets: Tensor) -> Facts:
    """Names in a mapping of the network's arguments and of the targets; `several` for a batch of more than two parts."""
    if isinstance(batch, Mapping):
        own = next(key for key, value in batch.items() if value is targets)
        single = [key for key, value in batch.items() if inputs.args and value is inputs.args[0]]
        return {"targets": own, "single": single[0]} if single else {"targets": own, "names": [*inputs.kwargs]}
    return {"several": isinstance(batch, list | tuple) and len(batch) > 2}


def _place(outputs: Any) -> str:
    """Expression for the tensor of scores or predictions in what a network gives, after its call."""
    scores = logits_of(outputs)
    if isinstance(outputs, Tensor):
        return ""
    if isinstance(outputs, Mapping):
        return next(f"[{key!r}]" for key in outputs if logits_of({"logits": outputs[key]}) is scores)
    if isinstance(outputs, tuple | list):
        return next(f"[{place}]" for place, part in enumerate(outputs) if part is scores)
    return next(f".{name}" for name in vars(outputs) if getattr(outputs, name) is scores)


def _loss_form(module: RegularizedModule, outputs: Tensor, targets: Tensor) -> str:
    """Name of the form in which outputs and targets meet the loss."""
    if module.task.name == "regression":
        return "numbers" if outputs.shape == targets.shape else "numbers of another shape"
    scores, _ = module.task.read(outputs, targets)
    if outputs.numel() == len(outputs) and scores.shape[-1] == 2:
        return "shares of one logit" if targets.is_floating_point() else "one logit"
    if outputs.ndim > 2 and targets.shape == outputs.shape[:-1]:
        return "classes last"
    if not targets.is_floating_point():
        return "classes"
    return "shares last" if outputs.ndim > 2 else "shares"


# -- modules that a Trainer trains -----------------------------------------------------------------------------------


def _module(factory: TrialFactory, configuration: Configuration) -> Facts:
    """Python text that builds and trains a user's module: `imports`, its `call`, and the arguments of its `trainer`."""
    config, model = factory.config, factory.config.model
    builder: Any = builder_of(model)
    init_args = model.init_args if isinstance(model, Source) else {}
    text = _Python()
    if factory.solo:
        rate = {"lr": configuration.lr} if "lr" in config.space else {}
        arguments = with_values(init_args, configuration.model | configuration.strengths | rate)
        options = config.trainer.model_dump(include={"accelerator", "devices", "precision"}) | config.trainer.options
        framework, seed = _framework(factory, configuration), derive_seed(config.seed, "solo") % 2**32
    else:
        arguments = init_args | configuration.model | {"strengths": configuration.strengths, "lr": configuration.lr}
        options = config.trainer.model_dump(include={"accelerator", "precision"})
        framework, seed = "lightning.pytorch", None
    own = [text.argument(name, value) for name, value in (shape_arguments(builder, factory.data) | arguments).items()]
    own += [] if factory.solo else _recipe(factory, text)
    call = f"{text.path(*_path(model, builder))}({', '.join(own)})"
    trainer = [text.argument(name, value) for name, value in {"max_epochs": config.budget.epochs, **options}.items()]
    facts = {"call": call, "trainer": trainer, "framework": framework, "seed": seed}
    return {"module": facts | {"imports": sorted(text.imports), "objects": text.objects}}


def _framework(factory: TrialFactory, configuration: Configuration) -> str:
    """Package whose Trainer trains a user's module, by its class if that is known before it is built."""
    base = lightning_base(product_of(builder_of(factory.config.model)), "LightningModule")
    if base is None:
        return framework_of(factory.trial(configuration)).__name__
    return "pytorch_lightning" if base.__module__.startswith("pytorch_lightning") else "lightning.pytorch"


def _recipe(factory: TrialFactory, text: "_Python") -> list[str]:
    """Arguments of a subclass of RegularizedModule that a study gives to each trial."""
    recipe, task = factory.recipe, factory.task
    fields = {
        "optimizer": recipe.optimizer,
        "schedule": recipe.schedule,
        "warmup": recipe.warmup,
        "decay": recipe.decay,
    }
    fields |= {"include": recipe.include, "exclude": recipe.exclude, "groups": dict(recipe.groups)}
    values = ", ".join(text.argument(name, value) for name, value in (fields | dict(recipe.options)).items())
    text.imports.add("import wdsearch")
    weights = f"wdsearch.Task({task.name!r}, {task.metric_name!r}, {task.class_weights!r})"
    return [f"recipe=wdsearch.Recipe({values})", f"task={weights}", f"seed={factory.config.seed}"]


def _path(model: Any, builder: Any) -> tuple[str, str]:
    """Module and name of what builds a model."""
    if isinstance(model, Source):
        path = model.class_path or f"{builder.__module__}.{builder.__qualname__}"
        module, _, name = path.rpartition(".")
        return module, name
    own = getattr(builder, "func", builder)
    return str(getattr(own, "__module__", "")), str(getattr(own, "__qualname__", type(own).__name__))


class _Python:
    """Values as Python text, the imports that it needs, and the names of objects that nothing can write."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.objects: list[str] = []

    def argument(self, name: str, value: Any) -> str:
        """Argument by name."""
        return f"{name}={self.value(value)}" if name.isidentifier() else f"**{{{name!r}: {self.value(value)}}}"

    def path(self, module: str, name: str) -> str:
        """Name of an object of a module; one of a program or of a function cannot be imported, and goes by its last name."""
        if module == "__main__" or "<" in name or not module:
            self.objects.append(name.rpartition(".")[2])
            return name.rpartition(".")[2]
        self.imports.add(f"from {module} import {name.partition('.')[0]}")
        return name

    def value(self, value: Any) -> str:
        """A value of a study: what names a class is built, what no text can hold is a name."""
        if is_nested(value):
            module, _, name = str(value["class_path"]).rpartition(".")
            own = [self.argument(key, part) for key, part in (value.get("init_args") or {}).items()]
            return self._built(self.path(module, name), module, own)
        if isinstance(value, Mapping):
            return f"{{{', '.join(f'{key!r}: {self.value(part)}' for key, part in value.items())}}}"
        if isinstance(value, list | tuple):
            parts = ", ".join(map(self.value, value))
            return f"[{parts}]" if isinstance(value, list) else f"({parts}{',' if len(value) == 1 else ''})"
        if isinstance(value, float) and (value != value or abs(value) == float("inf")):
            return f"float({str(value)!r})"
        if value is None or isinstance(value, bool | int | float | str):
            return repr(value)
        name = f"own_{type(value).__name__}"
        self.objects.append(name)
        return name

    def _built(self, name: str, module: str, arguments: list[str]) -> str:
        """Call of a class; optimizers and schedulers wait for their further arguments."""
        if module.startswith("torch.optim"):
            self.imports.add("from functools import partial")
            return f"partial({', '.join([name, *arguments])})"
        return f"{name}({', '.join(arguments)})"
