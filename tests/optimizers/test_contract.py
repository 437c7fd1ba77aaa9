"""The contract of every optimizer in the table; a new one is covered without new test code."""

import ast
import inspect
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from jsonschema import Draft7Validator
from support.training import INF, Ends, largest_difference, train_alone, train_fused

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.optimizers import DEFAULT, OPTIMIZERS, Optimizer, Option, decay_before_step
from wdsearch.population.fused import FusedCohort
from wdsearch.population.looped import LoopedCohort
from wdsearch.population.memory import footprint
from wdsearch.regularizers import REGULARIZERS, torch_equivalents
from wdsearch.study.build import build_recipe
from wdsearch.study.file import StudyFileError
from wdsearch.study.json_schema import study_schema
from wdsearch.study.load import load_study
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

EPOCHS, RATE, RATES = 3, 1e-3, (1e-3, 3e-3, 1e-2)
STRENGTHS = {
    "weight_decay": (0.0, 1.0, 0.1, 3.0),
    "l2": (1e-3, 0.0, 1e-4, 1e-2),
    "l1": (0.0, 1e-4, 1e-3, 1e-5),
    "dropout": (0.0, 0.3, 0.1, 0.5),
    "gradient_clip": (INF, 1.0, 0.3, INF),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def other(option: Option) -> Any:
    """A value that is allowed and not the default."""
    if isinstance(option.default, bool):
        return not option.default
    return tuple(0.9 * one for one in option.default) if isinstance(option.default, tuple) else 0.5 * option.default


def default_and_other() -> Iterator[Any]:
    """Every optimizer as it is by default, and with all options changed."""
    for key, optimizer in OPTIMIZERS.items():
        yield pytest.param(Recipe(key, "cosine", 0.1), id=key)
        changed = {name: other(option) for name, option in optimizer.options.items()}
        yield pytest.param(Recipe(key, **changed), id=f"{key}, other options")


def data() -> Any:
    return DATASETS["digits"](batch_size=128, seed=3)


def trial(number: int, recipe: Recipe, **changes: float) -> RegularizedModule:
    torch.manual_seed(0)
    strengths = {key: values[number] for key, values in STRENGTHS.items()} | changes
    return RegularizedModule(MODELS["mlp"](64, 10, hidden=(24, 16)), strengths, RATE * (number + 1) / 4, recipe, seed=3)


@pytest.mark.parametrize("recipe", [*default_and_other()])
def test_k_trials_equal_torchs_own_alone_also_when_one_leaves(recipe: Recipe) -> None:
    pruned = 2
    ends = train_fused({n: trial(n, recipe) for n in range(4)}, data(), EPOCHS, Ends(prune={pruned: 2}))
    for number in range(4):
        alone = trial(number, recipe)
        train_alone(alone, data(), EPOCHS, stop_after=2 if number == pruned else 0)
        assert largest_difference(alone.state_dict(), ends.states[number]) < 1e-9, number


@every_optimizer
def test_neutral_decay_does_nothing_and_some_decay_does(optimizer: Optimizer) -> None:
    def trained(strengths: dict[str, float], fuse: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = RegularizedModule(MODELS["mlp"](64, 10, hidden=(16,)), strengths, RATE, Recipe(optimizer.key), seed=3)
        state = train_fused({0: module}, data(), 2, fuse=fuse).states[0]
        return {name: value for name, value in state.items() if "strengths." not in name}

    for fuse in (True, False):
        without = trained({}, fuse)
        assert largest_difference(without, trained({"weight_decay": 0.0}, fuse)) == 0.0
        assert largest_difference(without, trained({"weight_decay": 1.0}, fuse)) > 1e-6


def stacked(optimizer: Optimizer, start: torch.Tensor, decay: float = 0.0) -> tuple[Any, torch.Tensor]:
    """The stacked optimizer over as many trials as there are rates, all from the same weights."""
    weights = torch.stack([start] * len(RATES)).requires_grad_()
    decays = torch.full((len(RATES),), decay, dtype=torch.float64)
    options = optimizer.complete({})
    stacked_optimizer = optimizer.stacked(
        [{"params": [weights], "decay": decays}], torch.tensor(RATES, dtype=torch.float64), **options
    )
    return stacked_optimizer, weights


@every_optimizer
def test_decay_is_decoupled_also_where_torchs_own_is_not(optimizer: Optimizer) -> None:
    """Without a gradient the weights shrink by 1 − ηλ at each step, and by nothing else."""
    start, decay, steps = torch.linspace(-1.0, 2.0, 35, dtype=torch.float64).reshape(5, 7), 0.3, 4
    together, weights = stacked(optimizer, start, decay)
    for _ in range(steps):
        weights.grad = torch.zeros_like(weights)
        together.step()
    for row, rate in enumerate(RATES):
        weight = start.clone().requires_grad_()
        alone = optimizer.alone([{"params": [weight], "decay": decay}], rate, optimizer.complete({}))
        for _ in range(steps):
            weight.grad = torch.zeros_like(weight)
            with torch.no_grad():
                decay_before_step(alone)
            alone.step()
        torch.testing.assert_close(weight.detach(), start * (1.0 - rate * decay) ** steps, rtol=1e-13, atol=0)
        torch.testing.assert_close(weights[row].detach(), weight.detach(), rtol=1e-13, atol=0)


@every_optimizer
def test_the_step_size_is_what_a_constant_gradient_is_multiplied_by(optimizer: Optimizer) -> None:
    """Measured, after so many steps that the moments have settled, fused and alone."""
    options = optimizer.complete({})
    gradient = torch.logspace(-4, 2, 35, dtype=torch.float64).reshape(5, 7) * torch.tensor([1.0, -1.0] * 4)[:7]
    together, weights = stacked(optimizer, torch.zeros_like(gradient))
    weight = torch.zeros_like(gradient).requires_grad_()
    alone = optimizer.alone([{"params": [weight], "decay": 0.0}], RATES[1], options)
    for _ in range(400):
        before = weights.detach().clone(), weight.detach().clone()
        weights.grad, weight.grad = gradient.expand_as(weights).clone(), gradient.clone()
        together.step()
        alone.step()
    group = together.param_groups[0]
    size = optimizer.step_size(together.state[weights], together.rate(group, weights), group)
    torch.testing.assert_close(before[0] - weights.detach(), size * gradient, rtol=1e-9, atol=0)
    size = optimizer.step_size(alone.state[weight], RATES[1], alone.param_groups[0])
    torch.testing.assert_close(before[1] - weight.detach(), size * gradient, rtol=1e-9, atol=0)


def batches(count: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(32, 64, generator=generator, dtype=torch.float64) for _ in range(count)]
    return [(inputs, torch.randint(0, 10, (32,), generator=generator)) for inputs in rows]


@pytest.mark.parametrize("kind", [FusedCohort, LoopedCohort])
@pytest.mark.parametrize("recipe", [*default_and_other()])
def test_what_is_saved_and_resumed_equals_what_was_not_interrupted(recipe: Recipe, kind: type[Any]) -> None:
    """To the last bit, with all trials and with some."""
    steps = batches(24)

    def begun(numbers: tuple[int, ...]) -> Any:
        return kind({n: trial(n, recipe, dropout=0.0).double() for n in numbers}, len(steps), torch.device("cpu"))

    whole = begun((0, 1, 2, 3))
    for index, batch in enumerate(steps[:12]):
        whole.step(batch, index)
    resumed = {numbers: begun(numbers) for numbers in ((0, 1, 2, 3), (1, 3))}
    for cohort in resumed.values():
        cohort.restore(saved(whole))
    for index, batch in enumerate(steps[12:]):
        for cohort in (whole, *resumed.values()):
            cohort.step(batch, 12 + index)
    for numbers, cohort in resumed.items():
        for number in numbers:
            assert largest_difference(whole.state(number), cohort.state(number)) == 0.0


def saved(cohort: Any) -> Any:
    """State that a cohort saves, as it comes back from a file."""
    file = io.BytesIO()
    torch.save(cohort.saved(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("recipe", [*default_and_other(), pytest.param(Recipe("sgd", momentum=0.0), id="no momentum")])
def test_the_moments_are_those_that_are_kept(recipe: Recipe) -> None:
    optimizer, batch = OPTIMIZERS[recipe.optimizer], batches(1)[0]
    cohort = FusedCohort({n: trial(n, recipe).double() for n in range(3)}, 1, torch.device("cpu"))
    cohort.step(batch, 0)
    moments = set(optimizer.stacked.moments(recipe.options))
    for weight in cohort.params.values():
        state = cohort.optimizer.state[weight]
        assert {name for name, value in state.items() if value.shape == weight.shape} == moments
    module = trial(0, recipe).double()
    alone, _ = module.optimizer_and_schedule(1)
    module.objective(batch).backward()
    alone.step()
    weight = next(module.parameters())
    own = {name for name, value in alone.state[weight].items() if value is not None and value.shape == weight.shape}
    assert own <= moments, "torch's own has the same, by the same names"
    less = footprint(trial(0, Recipe("sgd", momentum=0.0)).double(), batch, stops_early=False).per_trial
    weights = sum(value.nbytes for value in module.parameters())
    assert footprint(module, batch, stops_early=False).per_trial == less + len(moments) * weights


# -- options -------------------------------------------------------------------------------------------------------

STUDY = {"study": "x", "data": "digits", "model": "mlp", "space": {"lr": {"low": 0.1, "high": 1}}}
BUDGET = {"budget": {"trials": 1, "epochs": 1}}
SCHEMA = Draft7Validator(study_schema())


def study(**optimizer: Any) -> dict[str, Any]:
    return json.loads(json.dumps(STUDY | BUDGET | {"optimizer": optimizer}))


def refused(text: str, **optimizer: Any) -> None:
    with pytest.raises(StudyFileError, match=re.escape(text)):
        load_study(study(**optimizer))
    assert not SCHEMA.is_valid(study(**optimizer))


@every_optimizer
def test_a_study_gives_an_optimizer_its_options(optimizer: Optimizer) -> None:
    named = {} if optimizer.key == DEFAULT else {"name": optimizer.key}
    assert build_recipe(load_study(study(**named))) == Recipe(optimizer.key)
    for name, option in optimizer.options.items():
        assert option.default in option
        content = study(**named, **{name: other(option)})
        assert SCHEMA.is_valid(content)
        config = load_study(content)
        recipe = build_recipe(config)
        assert recipe == Recipe(optimizer.key, **{name: other(option)})
        assert getattr(recipe, name) == other(option)
        assert config.dump()["optimizer"] == content["optimizer"], "it is stored as it was written"
        assert load_study(config.dump()).optimizer == config.optimizer


@every_optimizer
def test_a_study_may_leave_any_option_empty(optimizer: Optimizer) -> None:
    empty = {name: None for one in OPTIMIZERS.values() for name in one.options}
    assert SCHEMA.is_valid(study(name=optimizer.key, **empty))
    assert build_recipe(load_study(study(name=optimizer.key, **empty))) == Recipe(optimizer.key)


@every_optimizer
def test_an_option_of_another_optimizer_or_out_of_range_is_refused(optimizer: Optimizer) -> None:
    for one in OPTIMIZERS.values():
        for name, option in one.options.items():
            if name not in optimizer.options:
                refused(f"optimizer.{name} belongs to ", name=optimizer.key, **{name: other(option)})
    for name, option in optimizer.options.items():
        for value in ("x", -1, [1], [0.5, 7]):
            assert value not in option
            refused(f"optimizer.{name}", name=optimizer.key, **{name: value})
            with pytest.raises(ValueError, match=f"{name} of {optimizer.key} is .*; allowed is "):
                Recipe(optimizer.key, **{name: value})
    refused(f"optimizer.{name}x is not a known key; did you mean {name}?", name=optimizer.key, **{f"{name}x": 0.5})


def test_an_option_of_one_name_is_one_option() -> None:
    options: dict[str, Option] = {}
    for optimizer in OPTIMIZERS.values():
        for name, option in optimizer.options.items():
            assert options.setdefault(name, option) == option


def test_an_unknown_optimizer_is_refused() -> None:
    refused("optimizer.name is 'adm'; allowed is 'adamw', 'sgd'", name="adm")
    with pytest.raises(ValueError, match="no optimizer 'adm'; did you mean adam"):
        Recipe("adm")
    with pytest.raises(TypeError, match="no 'betaz'; did you mean betas"):
        Recipe(betaz=(0.9, 0.9))
    with pytest.raises(ValueError, match="nesterov of sgd is true; it needs a momentum above 0"):
        Recipe("sgd", nesterov=True, momentum=0.0)
    everything = {"betas": (0.8, 0.9), "eps": 1e-7, "momentum": 0.5, "nesterov": True}
    assert Recipe("adamw", **everything) == Recipe("adamw", betas=(0.8, 0.9), eps=1e-7)


# -- what torch is told --------------------------------------------------------------------------------------------


def calls(text: str) -> list[ast.Call]:
    """The calls of torch.optim's classes in a text."""
    texts = re.findall(r"torch\.optim\.\w+\((?:[^()]|\([^()]*\))*\)", text)
    return [ast.parse(call, mode="eval").body for call in texts]  # type: ignore[misc]


def built(call: ast.Call, weight: torch.Tensor, **arguments: Any) -> torch.optim.Optimizer:
    kind = getattr(torch.optim, call.func.attr)  # type: ignore[attr-defined]
    own = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    inspect.signature(kind).bind([weight], **own | arguments)
    return kind([weight], **own | arguments)


@every_optimizer
@pytest.mark.parametrize("group", ["", "head"])
def test_what_torch_is_told_exists_and_takes_what_is_named(optimizer: Optimizer, group: str) -> None:
    texts = [optimizer.call(0.1, {name: other(option) for name, option in optimizer.options.items()})]
    for key, regularizer in REGULARIZERS.items():
        key = f"{key}:{group}" if group and regularizer.acts_on == "parameters" else key
        texts += torch_equivalents({key: 0.25}, optimizer.words).values()
    torch_calls = [call for text in texts for call in calls(text)]
    assert len(torch_calls) >= 2
    for call in torch_calls:
        built(call, torch.zeros(3, requires_grad=True))


@every_optimizer
def test_the_named_call_is_the_optimizer_itself(optimizer: Optimizer) -> None:
    """Defaults of torch that are others are named."""
    options = {name: other(option) for name, option in optimizer.options.items()}
    for named_options in ({}, options, {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}):
        (call,) = calls(optimizer.call(0.1, named_options))
        named = built(call, torch.zeros(3, requires_grad=True)).param_groups[0]
        assert named["lr"] == 0.1
        assert {name: named[name] for name in options} == optimizer.complete(named_options)


@every_optimizer
@pytest.mark.parametrize("key", ["weight_decay", "l2"])
def test_what_torch_is_told_of_a_decay_gives_the_same_weights(optimizer: Optimizer, key: str) -> None:
    """A trial with the strength, and torch's call in a plain loop; where there is none the loop decays as it says."""
    strength, rows = 0.25, batches(6)
    torch.manual_seed(0)
    network = torch.nn.Linear(64, 10, bias=False).double()
    module = RegularizedModule(
        torch.nn.Linear(64, 10, bias=False).double(), {key: strength}, RATE, Recipe(optimizer.key)
    )
    module.network.load_state_dict(network.state_dict())
    own, _ = module.optimizer_and_schedule(len(rows))
    text = torch_equivalents({key: strength}, optimizer.words)[key]
    options = optimizer.complete({})
    call = next(iter(calls(text)), None)
    weight = network.weight
    plain = built(call, weight, lr=RATE, **options) if call else optimizer.torch_class([weight], lr=RATE, **options)
    for inputs, targets in rows:
        own.zero_grad()
        module.objective((inputs, targets)).backward()
        module.before_step(own)
        own.step()
        plain.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs), targets).backward()
        if not call:
            assert f"p.mul_(1 - lr * {strength})" in text
            weight.data.mul_(1.0 - RATE * strength)
        plain.step()
    torch.testing.assert_close(module.network.weight, weight, rtol=1e-12, atol=1e-14)
