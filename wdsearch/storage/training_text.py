"""Text of a Python program that trains as a trial was trained, in plain torch; only the parts that act appear."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wdsearch.groups import split_key
from wdsearch.regularizers import REGULARIZERS
from wdsearch.storage.training import Training, constant
from wdsearch.storage.training_steps import step_texts

WIDTH = 100


def training_text(training: Training) -> str:
    """Python text that builds the optimizer and its schedule, and trains a network by them.

    >>> facts = {"decayed": ["weight"], "members": {"weight_decay": ["weight"]}, "steps_per_epoch": 10}
    >>> optimizer, strengths = {"name": "radam", "lr": 0.1}, {"weight_decay": 0.5}
    >>> text = training_text(Training("a: trial 3", 0, optimizer, strengths, {}, 4, 32, facts))
    >>> names = {}
    >>> exec(text, names)
    >>> import torch
    >>> [group["weight_decay"] for group in names["build_optimizer"](torch.nn.Linear(2, 1)).param_groups]
    [0.5, 0.0]
    """
    sections = (_constants, _parameter_groups, _build_optimizer, _build_schedule, _set_rates)
    constants, *builders = [text for section in sections if (text := "\n".join(section(training)))]
    functions = [*builders, *step_texts(training)]
    head = "\n\n".join([_docstring(training), _imports([constants, *functions]), constants])
    return "\n\n\n".join([head, *functions]) + "\n"


def _docstring(training: Training) -> str:
    lines = [
        f"Training of {training.title}, as wdsearch trained it; it needs torch alone.",
        "",
        f"torch.manual_seed({training.init_seed}) before your network is built gives the trial's initial weights.",
    ]
    if training.facts.get("object"):
        lines[-1] = "The network as it was when the search began has the trial's initial weights."
    if arguments := ", ".join(f"{name}={value!r}" for name, value in training.model.items()):
        lines.append(f"Arguments of the network that were searched: {arguments}.")
    for key in training.untold:
        lines += [f"MISSING here: {key} = {training.strengths[key]!r} of a package that gives no text for it."]
    about = "\n".join(lines).replace("\\", "\\\\").replace('"', "'")
    return f'"""{about}\n"""'


_IMPORTS = (
    {"import copy": r"\bcopy\.", "import math": r"\bmath\."},
    {
        "import torch": r"\btorch\.",
        "from torch import nn": r"\bnn\.",
        "from torch.nn import functional as F": r"\bF\.",
        "from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn": r"\bAveragedModel\(",
    },
)
"""Imports in their groups, and what is found in a text that needs them."""


def _imports(texts: Sequence[str]) -> str:
    """Imports of what the texts name."""
    whole = "\n".join(texts)
    groups = [[line for line, use in group.items() if re.search(use, whole)] for group in _IMPORTS]
    return "\n\n".join("\n".join(group) for group in groups if group)


# -- constants --------------------------------------------------------------------------------------------------------


def _constants(training: Training) -> Iterator[str]:
    facts, optimizer = training.facts, training.optimizer
    yield f"EPOCHS = {training.epochs}  # planned: the schedule ends with them"
    if steps := facts.get("steps_per_epoch"):
        rows = f", of {facts['batch_size']} rows" if "batch_size" in facts else ""
        yield f"STEPS_PER_EPOCH = {steps}  # batches{rows}"
    yield f"LR = {optimizer['lr']!r}"
    if optimizer.get("warmup"):
        yield f"WARMUP = {optimizer['warmup']!r}  # share of all steps"
    if weights := facts.get("class_weights"):
        yield from _wrapped("CLASS_WEIGHTS = [", [repr(weight) for weight in weights], "]")
    keys = [key for key in training.strengths if key not in training.untold]
    on_all = [key for key in keys if _members(training, key) == facts.get("decayed")]
    if on_all:
        yield from _wrapped("DECAYED = [", _quoted(facts["decayed"]), "]")
    for regularizer in dict.fromkeys(split_key(key)[0] for key in keys):
        own = [key for key in keys if split_key(key)[0] == regularizer]
        yield from _strength(training, regularizer, own, on_all)


def _members(training: Training, key: str) -> Any:
    return training.facts.get("members", {}).get(key)


def _strength(training: Training, regularizer: str, keys: Sequence[str], on_all: Sequence[str]) -> Iterator[str]:
    """A number, or for what acts on parameters or layers a number by their names."""
    record, first = REGULARIZERS[regularizer], keys[0]
    name, about, value = constant(regularizer), record.unit.removesuffix("; ∞ is off"), training.strengths[first]
    if record.acts_on is None:
        yield f"{name} = {int(value) if record.integer else value!r}  # {about}"
    elif first in on_all:
        yield f"{name} = dict.fromkeys(DECAYED, {value!r})  # {about}"
    elif not split_key(first)[1]:
        yield f"# {about}"
        yield from _wrapped(f"{name} = dict.fromkeys([", _quoted(_members(training, first)), f"], {value!r})")
    else:
        yield f"{name} = {{  # {about}"
        for key in keys:
            names = _quoted(_members(training, key))
            lines = list(_wrapped("**dict.fromkeys([", names, f"], {training.strengths[key]!r}),"))
            yield textwrap.indent("\n".join(lines), "    ") + f"  # {split_key(key)[1]}"
        yield "}"


def _quoted(names: Sequence[str]) -> list[str]:
    return [json.dumps(name, ensure_ascii=False) for name in names]


def _wrapped(start: str, parts: Sequence[str], end: str) -> Iterator[str]:
    """Parts with commas between them, in one line or in as many as their width asks for."""
    whole = f"{start}{', '.join(parts)}{end}"
    if len(whole) <= WIDTH:
        yield whole
        return
    yield start
    yield from textwrap.wrap(", ".join(parts) + ",", WIDTH, initial_indent="    ", subsequent_indent="    ",
                             break_long_words=False, break_on_hyphens=False)  # fmt: skip
    yield end


# -- optimizer and schedule -------------------------------------------------------------------------------------------


def _parameter_groups(training: Training) -> Iterator[str]:
    if not (name := training.first("decay")):
        return
    key = "decoupled_decay" if training.decays_apart else "weight_decay"
    yield f'''\
def parameter_groups(network):
    """The trained parameters by their decoupled decay, 0 for all that {name} does not name."""
    groups = {{}}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault({name}.get(name, 0.0), []).append(parameter)
    return [{{"params": parameters, "{key}": decay}} for decay, parameters in groups.items()]'''


def _build_optimizer(training: Training) -> Iterator[str]:
    decays = bool(training.acting("decay"))
    parameters = "parameter_groups(network)" if decays else "network.parameters()"
    call = training.record.whole_call(parameters, "LR", training.options, decays)
    yield "def build_optimizer(network):"
    if len(call) + len("    return ") <= WIDTH:
        yield f"    return {call}"
        return
    name, _, arguments = call.removesuffix(")").partition("(")
    first, _, rest = arguments.partition(", ")
    yield from (f"    return {name}(", f"        {first},", f"        {rest},", "    )")


def _build_schedule(training: Training) -> Iterator[str]:
    known = "steps_per_epoch" in training.facts
    steps = "steps=EPOCHS * STEPS_PER_EPOCH" if known else "steps"
    yield f"def build_schedule(optimizer, {steps}):"
    warms, cosine = bool(training.optimizer.get("warmup")), training.optimizer.get("schedule") == "cosine"
    if not warms and not cosine:
        yield '    """Constant rate."""'
        yield "    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)"
        return
    about = {(True, True): "linear warm-up, then a cosine", (True, False): "linear warm-up, then constant"}
    yield f'    """Factor of the learning rate of each step: {about.get((warms, cosine), "a cosine")}."""'
    yield from ["    rising = round(WARMUP * steps)", ""] if warms else []
    yield "    def factor(step):"
    if warms:
        yield "        if step < rising:"
        yield "            return (step + 1) / (rising + 1)"
    since = "(step - rising) / max(1, steps - rising)" if warms else "step / steps"
    yield f"        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, {since})))" if cosine else "        return 1.0"
    yield ""
    yield "    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)"


def _set_rates(training: Training) -> Iterator[str]:
    for key in training.acting("buffer"):
        yield f'''\
def set_{key}(network):
    """Set the rates of the layers that {constant(key)} names; all others keep their own."""
    for path, rate in {constant(key)}.items():
        layer, _, attribute = path.rpartition(".")
        setattr(network.get_submodule(layer), attribute, rate)'''


# -- modules that a Trainer trains --------------------------------------------------------------------------------------


def module_text(title: str, init_seed: int, module: Mapping[str, Any]) -> str:
    """Python text that builds a user's LightningModule, and trains it by Lightning's Trainer.

    >>> facts = {"call": "Own(lr=0.1)", "trainer": ["max_epochs=4"], "framework": "lightning.pytorch", "seed": 7}
    >>> text = module_text("a: trial 3", 5, facts | {"imports": ["from own import Own"], "objects": []})
    >>> print("\\n".join(text.splitlines()[-4:]))
    module = Own(lr=0.1)
    L.seed_everything(7)
    trainer = L.Trainer(max_epochs=4)
    trainer.fit(module, datamodule=data)
    """
    about = [f"Training of {title}, as wdsearch trained it; `data` is your data module."]
    about += [f"{name} is an object of your program, which no storage holds." for name in module["objects"]]
    framework = module["framework"].replace("lightning.pytorch", "lightning")
    imports = [*module["imports"], f"import {framework} as L", "import random", "import numpy", "import torch"]
    lines = ['"""' + ("\n".join([about[0], "", *about[1:], '"""']) if about[1:] else f'{about[0]}"""'), ""]
    lines += [*sorted(imports), "", f"random.seed({init_seed})  # the trial's initial weights"]
    lines += [
        f"numpy.random.seed({init_seed % 2**32})",
        f"torch.manual_seed({init_seed})",
        f"module = {module['call']}",
    ]
    lines += [f"L.seed_everything({module['seed']})"] if module["seed"] is not None else []
    lines += [f"trainer = L.Trainer({', '.join(module['trainer'])})", "trainer.fit(module, datamodule=data)"]
    return "\n".join(lines) + "\n"
