"""Python text of a training's steps: loss, penalties, what acts before and after a step, and the loop that ties them together."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from wdsearch.storage.training import Training, constant


def step_texts(training: Training) -> list[str]:
    """Texts of the functions that act in this training, the loop last."""
    sections = (_loss, _penalty, _objective, _before_step, _step_size, _after_step, _validation_loss, _train)
    return [text for section in sections if (text := "\n".join(section(training)))]


# -- loss and penalties -----------------------------------------------------------------------------------------------


_LOSSES = {
    "numbers": ((), "F.mse_loss(outputs, targets)"),
    "numbers of another shape": ((), "F.mse_loss(outputs.reshape(targets.shape), targets)"),
    "classes": ((), "F.cross_entropy(outputs, targets{})"),
    "shares": ((), "F.cross_entropy(outputs, targets{})"),
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
    more = ", weight=outputs.new_tensor(CLASS_WEIGHTS)" if facts.get("class_weights") else ""
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
        terms.append(f"sum({term} for name, strength in {constant(key)}.items())")
    yield f"    return {' + '.join(terms)}"


def _objective(training: Training) -> Iterator[str]:
    yield "def objective(network, inputs, targets):"
    yield '    """Mean loss of a batch in training, with all that acts on it."""'
    form = training.facts.get("inputs", {})
    numbers = training.facts.get("floating", True) or _is_collection(form)  # noise is added to no class numbers
    for key, regularizer in training.acting("augment").items() if numbers else ():
        yield f"    inputs = {_augmented(form, training.facts, regularizer.code, constant(key))}"
    smoothing = "".join(
        f", {regularizer.code.format(strength=constant(key))}" for key, regularizer in training.acting("loss").items()
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
    parts = [*(["clip the gradient"] if clips else []), *(["decay the weights"] if training.decays_apart else [])]
    yield f'    """{" and ".join(parts).capitalize()} before the optimizer\'s step."""'
    for key, regularizer in clips.items():
        yield f"    {regularizer.code.format(strength=constant(key))}"
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
        yield f"    for name, strength in {constant(key)}.items():"
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
    size = "sum(CLASS_WEIGHTS[number] for number in targets.flatten().tolist())" if weighted else "len(targets)"
    yield f"        size = {size}"
    yield f"        total += loss({_outputs(training)}, targets).item() * size"
    yield "        rows += size"
    yield "    return total / rows"


def _train(training: Training) -> Iterator[str]:
    average, patience = training.first("evaluated"), training.first("patience")
    judged = "averaged.module" if average else "network"
    yield f"def train(network, batches{', validation' if patience else ''}, epochs=EPOCHS):"
    yield f'    """The network, trained on batches of {_batch_text(training)}, as the trial was judged."""'
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
    yield from ["            before_step(network, optimizer)"] if any(_before_step(training)) else []
    yield "            optimizer.step()"
    yield from ["            after_step(network, optimizer)"] if any(_after_step(training)) else []
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
