"""Text of a Python program that trains as a trial was trained, in plain torch; only the parts that act appear."""

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wdsearch.groups import split_key
from wdsearch.optimizers import OPTIMIZERS, Optimizer
from wdsearch.regularizers import REGULARIZERS, Regularizer

WIDTH = 100


@dataclass(frozen=True)
class Training:
    """A trial's training as its text needs it.

    `strengths` are those that act; `facts` are those of `wdsearch.study.training_facts`, of a network that wdsearch trains.
    """

    title: str
    init_seed: int
    optimizer: Mapping[str, Any]
    strengths: Mapping[str, float]
    model: Mapping[str, Any]
    epochs: int
    precision: object
    facts: Mapping[str, Any]

    @property
    def record(self) -> Optimizer:
        """The optimizer's entry in the table."""
        return OPTIMIZERS[self.optimizer["name"]]

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's own options."""
        return {name: self.optimizer[name] for name in self.record.options if self.optimizer.get(name) is not None}

    def acting(self, point: str) -> dict[str, Regularizer]:
        """Regularizers with a text that act at a point of training, by key; of a group's each once."""
        keys = dict.fromkeys(split_key(key)[0] for key in self.strengths)
        acting = {key: REGULARIZERS[key] for key in keys if getattr(REGULARIZERS[key], point)}
        return {key: regularizer for key, regularizer in acting.items() if regularizer.code}

    def first(self, point: str) -> str:
        """Name of the constant of the regularizer that acts at a point; empty if none does."""
        return next((_constant(key) for key in self.acting(point)), "")

    @property
    def untold(self) -> list[str]:
        """Keys of strengths that have no text."""
        return [key for key in self.strengths if not REGULARIZERS[split_key(key)[0]].code]

    @property
    def decays_apart(self) -> bool:
        """True if torch's optimizer lacks the decay, which is then applied before its step."""
        return bool(self.acting("decay")) and self.record.own_decay is None and self.record.words.decoupled is None


def training_text(training: Training) -> str:
    """Python text that builds the optimizer and its schedule, and trains a network by them.

    >>> facts = {"decayed": ["weight"], "members": {"weight_decay": ["weight"]}, "steps_per_epoch": 10}
    >>> text = training_text(Training("a: trial 3", 0, {"name": "adamw", "lr": 0.1}, {"weight_decay": 0.5}, {}, 4, 32, facts))
    >>> names = {}
    >>> exec(text, names)
    >>> import torch
    >>> [group["weight_decay"] for group in names["build_optimizer"](torch.nn.Linear(2, 1)).param_groups]
    [0.5, 0.0]
    """
    sections = [_constants, _parameter_groups, _build_optimizer, _build_schedule, _set_rates, _loss, _penalty]
    sections += [_objective, _before_step, _step_size, _after_step, _validation_loss, _train]
    constants, *bodies = [text for section in sections if (text := "\n".join(section(training)))]
    head = "\n\n".join([_docstring(training), _imports([constants, *bodies]), constants])
    return "\n\n\n".join([head, *bodies]) + "\n"


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
    return '"""' + "\n".join(lines) + '\n"""'


def _imports(bodies: Sequence[str]) -> str:
    """Imports of what the text names."""
    text = "\n".join(bodies)
    known = {"import copy": "copy.", "import math": "math.", "import torch": "torch."}
    known |= {"from torch import nn": "nn.", "from torch.nn import functional as F": "F."}
    swa = "from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn"
    groups = [list(known)[:2], [*list(known)[2:], swa]]
    used = [[line for line in group if known.get(line, "AveragedModel(") in text] for group in groups]
    return "\n\n".join("\n".join(group) for group in used if group)


# -- constants --------------------------------------------------------------------------------------------------------


def _constant(key: str) -> str:
    return key.upper()


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
        yield from _wrapped("CLASS_WEIGHTS = torch.tensor([", [repr(weight) for weight in weights], "])")
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
    name, about, value = _constant(regularizer), record.unit.removesuffix("; ∞ is off"), training.strengths[first]
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


# -- loss and penalties -----------------------------------------------------------------------------------------------


def _set_rates(training: Training) -> Iterator[str]:
    for key in training.acting("buffer"):
        yield f'''\
def set_{key}(network):
    """Set the rates of the layers that {_constant(key)} names; all others keep their own."""
    for path, rate in {_constant(key)}.items():
        layer, _, attribute = path.rpartition(".")
        setattr(network.get_submodule(layer), attribute, rate)'''


_LOSSES = {
    "numbers": ((), "F.mse_loss(outputs, targets)"),
    "numbers of another shape": ((), "F.mse_loss(outputs.reshape(targets.shape), targets)"),
    "classes": ((), "F.cross_entropy(outputs, targets{})"),
    "classes last": ((), "F.cross_entropy(outputs.flatten(0, -2), targets.flatten(){})"),
    "shares last": ((), "F.cross_entropy(outputs.flatten(0, -2), targets.flatten(0, -2){})"),
    "one logit": (
        ("outputs = F.pad(outputs.reshape(-1, 1), (1, 0))  # the scores of two classes: 0 and the logit",),
        "F.cross_entropy(outputs, targets.flatten(){})",
    ),
    "shares of one logit": (
        (
            "outputs = F.pad(outputs.reshape(-1, 1), (1, 0))  # the scores of two classes: 0 and the logit",
            "targets = torch.stack([1 - targets.flatten(), targets.flatten()], 1)",
        ),
        "F.cross_entropy(outputs, targets{})",
    ),
}
"""Lines, and the mean loss of a batch with a place for more arguments, by the form of outputs and targets."""


def _loss(training: Training) -> Iterator[str]:
    facts = training.facts
    default = "numbers" if facts.get("task") == "regression" else "classes"
    lines, value = _LOSSES[facts.get("loss", default)]
    smooths = training.acting("loss")
    more = ", weight=CLASS_WEIGHTS.to(outputs)" if facts.get("class_weights") else ""
    more += ", label_smoothing=label_smoothing" if smooths else ""
    yield f"def loss(outputs, targets{', label_smoothing=0.0' if smooths else ''}):"
    yield '    """Mean loss of a batch, without regularizers."""'
    yield from ["    targets = targets.long()"] if facts.get("short_targets") else []
    yield from (f"    {line}" for line in lines)
    yield f"    return {value.format(more)}"


def _penalty(training: Training) -> Iterator[str]:
    acting = training.acting("penalty")
    if not acting:
        return
    yield "def penalty(network):"
    yield '    """Penalties through the gradient, which no weight_decay of the optimizer does."""'
    yield "    weights = dict(network.named_parameters())"
    terms = []
    for key, regularizer in acting.items():
        term = regularizer.code.format(strength="strength", x="weights[name]")
        terms.append(f"sum({term} for name, strength in {_constant(key)}.items())")
    yield f"    return {' + '.join(terms)}"


def _objective(training: Training) -> Iterator[str]:
    yield "def objective(network, inputs, targets):"
    yield '    """Mean loss of a batch in training, with all that acts on it."""'
    form = training.facts.get("inputs", {})
    numbers = training.facts.get("floating", True) or _is_collection(form)  # noise is added to no class numbers
    for key, regularizer in training.acting("augment").items() if numbers else ():
        yield f"    inputs = {_augmented(form, training.facts, regularizer.code, _constant(key))}"
    smoothing = "".join(
        f", {regularizer.code.format(strength=_constant(key))}" for key, regularizer in training.acting("loss").items()
    )
    outputs = _outputs(training)
    if training.precision == "bf16-mixed":
        yield "    with torch.autocast(targets.device.type, torch.bfloat16):"
        yield f"        outputs = {outputs}.float()"
        outputs = "outputs"
    plus = " + penalty(network)" if training.acting("penalty") else ""
    yield f"    return loss({outputs}, targets{smoothing}){plus}"


def _augmented(form: Mapping[str, Any], facts: Mapping[str, Any], code: str, strength: str) -> str:
    """Inputs after noise, tensor by tensor where there are several."""
    if not _is_collection(form):
        return code.format(x="inputs", strength=strength)
    one = code.format(x="x", strength=strength)
    one = one if facts.get("floating") else f"{one} if x.is_floating_point() else x"
    return f"{{name: {one} for name, x in inputs.items()}}" if "names" in form else f"[{one} for x in inputs]"


def _is_collection(form: Mapping[str, Any]) -> bool:
    """True if a network is called with several inputs."""
    return bool(form.get("several")) or "names" in form


def _outputs(training: Training) -> str:
    form = training.facts.get("inputs", {})
    stars = "*" if form.get("several") else "**" if "names" in form else ""
    return f"network({stars}inputs){training.facts.get('outputs', '')}"


# -- around the step --------------------------------------------------------------------------------------------------


def _before_step(training: Training) -> Iterator[str]:
    clips = training.acting("gradients")
    if not clips and not training.decays_apart:
        return
    yield "@torch.no_grad()"
    yield "def before_step(network, optimizer):"
    for key, regularizer in clips.items():
        yield f"    {regularizer.code.format(strength=_constant(key))}"
    if training.decays_apart:
        yield from (
            "    for group in optimizer.param_groups:",
            '        for weight in group["params"]:',
            "            if weight.grad is not None:",
            '                weight.mul_(1.0 - group["lr"] * group["decoupled_decay"])',
        )


def _step_size(training: Training) -> Iterator[str]:
    if not training.acting("prox"):
        return
    yield "def step_size(state, group):"
    yield '    """Factor by which the optimizer multiplies a constant gradient."""'
    yield textwrap.indent(training.record.words.step_size_code, "    ")


def _after_step(training: Training) -> Iterator[str]:
    acting = training.acting("prox")
    if not acting:
        return
    yield "@torch.no_grad()"
    yield "def after_step(network, optimizer):"
    yield '    """Proximal step, which reaches exact zeros."""'
    yield "    weights, group = dict(network.named_parameters()), optimizer.param_groups[0]"
    for key, regularizer in acting.items():
        yield f"    for name, strength in {_constant(key)}.items():"
        yield "        weight = weights[name]"
        yield "        if weight.grad is not None:"
        yield "            threshold = strength * step_size(optimizer.state[weight], group)"
        yield f"            weight.copy_({regularizer.code.format(x='weight', strength='threshold')})"


# -- the loop ---------------------------------------------------------------------------------------------------------


def _split(training: Training, indent: str) -> list[str]:
    """Lines of a loop over batches, up to the inputs and targets of one."""
    form = training.facts.get("inputs", {})
    if form.get("several"):
        return [f"{indent}for *inputs, targets in batches:"]
    if "single" in form or "names" in form:
        names = ", ".join(f"{name!r}: batch[{name!r}]" for name in form.get("names", ()))
        inputs = f"{{{names}}}" if "names" in form else f"batch[{form['single']!r}]"
        return [f"{indent}for batch in batches:", f"{indent}    inputs, targets = {inputs}, batch[{form['targets']!r}]"]
    return [f"{indent}for inputs, targets in batches:"]


def _validation_loss(training: Training) -> Iterator[str]:
    if not training.acting("patience"):
        return
    yield "@torch.no_grad()"
    yield "def validation_loss(network, batches):"
    yield '    """Mean loss over all rows, without regularizers."""'
    yield "    network.eval()"
    yield "    total, rows = 0.0, 0.0"
    yield from _split(training, "    ")
    weighted = training.facts.get("class_weights") and "shares" not in training.facts.get("loss", "")
    yield f"        size = {'CLASS_WEIGHTS.to(targets.device)[targets].sum().item()' if weighted else 'len(targets)'}"
    yield f"        total += loss({_outputs(training)}, targets).item() * size"
    yield "        rows += size"
    yield "    return total / rows"


def _train(training: Training) -> Iterator[str]:
    average, patience = training.first("evaluated"), training.first("patience")
    judged = "averaged.module" if average else "network"
    yield f"def train(network, batches{', validation' if patience else ''}, epochs=EPOCHS):"
    yield f'    """Train on batches of {_batch_text(training)}; the weights by which the trial was judged."""'
    yield from (f"    set_{key}(network)" for key in training.acting("buffer"))
    if str(training.precision).startswith("64"):
        yield "    network.double()  # as the inputs have to be"
    yield "    optimizer = build_optimizer(network)"
    steps = "STEPS_PER_EPOCH" if "steps_per_epoch" in training.facts else "len(batches)"
    yield f"    schedule = build_schedule(optimizer, epochs * {steps})"
    if average:
        yield f"    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn({average}))"
    if patience:
        yield '    best_loss, best_epoch, best_state = float("inf"), 0, None'
    yield f"    for {'epoch' if patience else '_'} in range(epochs):"
    yield "        network.train()"
    yield from _split(training, "        ")
    yield "            optimizer.zero_grad()"
    yield "            objective(network, inputs, targets).backward()"
    calls: Mapping[str, Callable[[Training], Iterator[str]]] = {"before_step": _before_step, "after_step": _after_step}
    yield from ["            before_step(network, optimizer)"] if any(calls["before_step"](training)) else []
    yield "            optimizer.step()"
    yield from ["            after_step(network, optimizer)"] if any(calls["after_step"](training)) else []
    yield from ["            averaged.update_parameters(network)"] if average else []
    yield "            schedule.step()"
    yield from _stopping(judged, patience) if patience else []
    yield f"    return {judged}.eval()"


def _stopping(judged: str, patience: str) -> list[str]:
    return [
        f"        value = validation_loss({judged}, validation)",
        "        if value < best_loss:",
        f"            best_loss, best_epoch, best_state = value, epoch, copy.deepcopy({judged}.state_dict())",
        f"        if epoch - best_epoch >= {patience}:",
        "            break",
        f"    {judged}.load_state_dict(best_state)",
    ]


def _batch_text(training: Training) -> str:
    rows = training.facts.get("batch_size")
    return f"{rows} rows in a new order each epoch" if rows else "rows in a new order each epoch"


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
