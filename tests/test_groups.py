"""Strengths of their own for groups of parameters and layers, and which parameters decay at all."""

import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from mlflow import MlflowClient
from support.commands import called
from support.studies import faults, yaml_free
from support.training import Ends, largest_difference, quiet_trainer, train_alone, train_fused
from torch import nn

import wdsearch
from wdsearch.datasets import DATASETS
from wdsearch.errors import BuildError
from wdsearch.groups import assigned, group_name
from wdsearch.models import MODELS
from wdsearch.search.preview import preview
from wdsearch.study.build import build_recipe
from wdsearch.study.load import load_study
from wdsearch.study.space import baseline, configuration, distributions
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.parameters import dropout_layers_of
from wdsearch.trial.recipe import Recipe, decayed_parameters, reasons

HALVES = {"head": r"^head\.", "body": r"^body\."}
DROPS = {"late": "late", "early": "drop"}
GROUPS = {"weight_decay": HALVES, "l2": HALVES, "l1": {"head": "head"}, "dropout": DROPS}
STRENGTHS = {
    "weight_decay:head": [0.0, 3.0, 0.1, 1.0],
    "weight_decay:body": [1.0, 0.0, 10.0, 0.3],
    "l2:body": [1e-3, 0.0, 1e-2, 1e-4],
    "l2:head": [0.0, 1e-2, 0.0, 1e-3],
    "l1:head": [1e-3, 1e-4, 0.0, 1e-2],
    "dropout:early": [0.0, 0.3, 0.5, 0.1],
    "dropout:late": [0.5, 0.0, 0.1, 0.2],
}


class Network(nn.Module):
    """Two halves, each with a layer that drops."""

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 23), nn.LayerNorm(23), nn.ReLU())
        self.drop, self.late = nn.Dropout(dropout), nn.Dropout(dropout)
        self.hidden, self.head = nn.Linear(23, 13), nn.Linear(13, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.late(torch.tanh(self.hidden(self.drop(self.body(rows))))))


def data(batch_size: int = 150) -> L.LightningDataModule:
    return DATASETS["digits"](batch_size=batch_size, seed=3)


def trial(number: int, recipe: Recipe, names: tuple[str, ...] = tuple(STRENGTHS)) -> RegularizedModule:
    torch.manual_seed(0)
    return RegularizedModule(
        Network(), {key: STRENGTHS[key][number] for key in names}, 2e-4 * (number + 1), recipe, seed=3
    )


RECIPES = {
    "adamw": Recipe("adamw", schedule="cosine", groups=GROUPS),
    "sgd": Recipe("sgd", schedule="cosine", warmup=0.1, groups=GROUPS),
}


# -- what is trained -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_trial_with_groups_equals_training_it_alone(recipe: Recipe, fuse: bool) -> None:
    ends = train_fused({number: trial(number, recipe) for number in range(4)}, data(), 3, Ends(prune={1: 2}), fuse=fuse)
    for number, state in ends.states.items():
        alone = trial(number, recipe)
        train_alone(alone, data(), 3, stop_after=2 if number == 1 else 0)
        assert largest_difference(alone.state_dict(), state) < 1e-9, number


def test_neighbours_change_no_bit_of_a_trial_with_groups() -> None:
    def run(*numbers: int, max_fused: int = 32) -> Ends:
        trials = {number: trial(number, RECIPES["adamw"]) for number in numbers}
        return train_fused(trials, data(101), 2, max_fused=max_fused, precision="32-true")

    together = run(0, 1, 2, 3)
    for other in (run(2, 0), run(3), run(0, 1, 2, 3, max_fused=2)):
        for number, state in other.states.items():
            assert largest_difference(together.states[number], state) == 0.0, number


class Plain(L.LightningModule):
    """The same network with torch's own parameter groups, written out; nothing of wdsearch."""

    def __init__(self, optimizer: type[torch.optim.Optimizer], head: float, body: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.optimizer, self.head, self.body = Network(0.0), optimizer, head, body

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        """Nothing is judged."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        network = self.network
        free = [network.body[0].bias, *network.body[1].parameters(), *network.hidden.parameters(), network.head.bias]
        groups = [
            {"params": [network.head.weight], "weight_decay": self.head},
            {"params": [network.body[0].weight], "weight_decay": self.body},
            {"params": free, "weight_decay": 0.0},
        ]
        more = {"momentum": 0.9} if self.optimizer is torch.optim.SGD else {}
        return self.optimizer(groups, lr=1e-3, **more)


@pytest.mark.parametrize(
    ("recipe", "key", "optimizer", "factor"),
    [
        (Recipe("adamw", groups=GROUPS), "weight_decay", torch.optim.AdamW, 1.0),
        (Recipe("sgd", groups=GROUPS), "l2", torch.optim.SGD, 2.0),  # torch's gradient of its weight_decay is λw
        (Recipe("adam", groups=GROUPS), "l2", torch.optim.Adam, 2.0),
        (Recipe("radam", groups=GROUPS), "l2", torch.optim.RAdam, 2.0),
        (Recipe("adam", groups=GROUPS), "weight_decay", torch.optim.AdamW, 1.0),
    ],
    ids=["adamw", "sgd", "adam", "radam", "adam decoupled"],
)
def test_a_group_is_torchs_own_parameter_group(
    recipe: Recipe, key: str, optimizer: type[torch.optim.Optimizer], factor: float
) -> None:
    """Weights that no group takes (here `hidden`) do not decay."""
    pairs = [(0.5, 0.01), (0.0, 2.0), (0.1, 0.0)]

    def build(head: float, body: float) -> RegularizedModule:
        torch.manual_seed(0)
        return RegularizedModule(Network(0.0), {f"{key}:head": head, f"{key}:body": body}, 1e-3, recipe, seed=3)

    ends = train_fused({number: build(*pair) for number, pair in enumerate(pairs)}, data(), 3)
    for number, (head, body) in enumerate(pairs):
        plain = Plain(optimizer, factor * head, factor * body)
        quiet_trainer(3).fit(plain, datamodule=data())
        ours = ends.states[number]
        for name, value in plain.network.named_parameters():
            assert (ours[f"network.{name}"] - value.detach()).abs().max() < 1e-9, (number, name)


def test_l1_of_a_group_leaves_exact_zeros_there_only() -> None:
    recipe = Recipe(groups={"l1": {"head": "head"}})
    torch.manual_seed(0)
    module = RegularizedModule(Network(0.0), {"l1:head": 0.05}, 1e-2, recipe, seed=3)
    (state,) = train_fused({0: module}, data(), 3).states.values()
    assert (state["network.head.weight"] == 0).float().mean() > 0.2
    assert not (state["network.body.0.weight"] == 0).any()
    assert not (state["network.hidden.weight"] == 0).any()


def test_equal_strengths_of_all_groups_are_the_strength_of_the_whole() -> None:
    whole = {"weight_decay": "w", "l2": "w", "l1": "w"}
    recipe = Recipe(groups={key: {"head": r"head\.", "rest": ""} for key in whole})
    values = {"weight_decay": 0.7, "l2": 1e-3, "l1": 1e-4}

    def build(strengths: dict[str, float]) -> RegularizedModule:
        torch.manual_seed(0)
        return RegularizedModule(Network(0.0), strengths, 1e-3, recipe, seed=3)

    split = {f"{key}:{group}": value for key, value in values.items() for group in ("head", "rest")}
    (grouped,) = train_fused({0: build(split)}, data(), 2).states.values()
    (single,) = train_fused({0: build(values)}, data(), 2).states.values()
    names = [name for name in single if name.startswith("network.")]
    assert largest_difference({n: grouped[n] for n in names}, {n: single[n] for n in names}) < 1e-12


def test_layers_that_drop_have_rates_by_group_and_the_others_keep_their_own() -> None:
    class Owner(Network):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Dropout(0.4)
            self.clock = nn.Module()
            self.clock.register_buffer("rate", torch.tensor(5.0))  # a user's own, no layer that drops

    module = RegularizedModule(Owner(), {"dropout:late": 0.1, "dropout:early": 0.3}, recipe=Recipe(groups=GROUPS))
    rates = {name: float(module.get_buffer(f"network.{name}.rate")) for name in ("drop", "late", "more", "clock")}
    assert rates == {"drop": 0.3, "late": 0.1, "more": 0.4, "clock": 5.0}
    shown = {layer.name: layer.strengths for layer in dropout_layers_of(module)}
    assert shown == {"drop": ("dropout:early",), "late": ("dropout:late",), "more": ()}
    whole = RegularizedModule(Owner(), {"dropout": 0.2})
    assert float(whole.get_buffer("network.clock.rate")) == 5.0


def test_a_users_subclass_may_have_layers_and_weights_of_its_own() -> None:
    class Own(RegularizedModule):
        def __init__(self, **options: Any) -> None:
            super().__init__(Network(), **options)
            self.layers, self.weights = nn.ModuleList([nn.Linear(2, 2)]), [1.0]

    module = Own(strengths={"weight_decay:head": 1.0, "dropout:late": 0.1}, recipe=Recipe(groups=GROUPS))
    module.optimizer_and_schedule(3)
    assert [layer.name for layer in dropout_layers_of(module)] == ["drop", "late"]


@pytest.mark.parametrize(
    ("strengths", "text"),
    [
        ({"weight_decay:tail": 1.0}, "no such group; it has: head, body"),
        ({"label_smoothing:head": 0.1}, "acts on the whole trial"),
        ({"weight_decai:head": 0.1}, "no regularizer 'weight_decai:head'"),
    ],
)
def test_a_strength_of_no_group_is_refused(strengths: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RegularizedModule(Network(), strengths, recipe=Recipe(groups=GROUPS))


# -- which parameters decay ----------------------------------------------------------------------------------------


class Zoo(nn.Module):
    """One parameter of each kind; the output shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4), nn.Embedding(5, 4)
        self.mix, self.norm = nn.Linear(4, 4), nn.LayerNorm((4, 4))
        self.frozen = nn.Linear(4, 4, bias=False).requires_grad_(False)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.words.weight
        self.scale = nn.Parameter(torch.ones(4))


WHY = {
    "scale": "vector",
    "words.weight": None,
    "places.weight": "embedding",
    "mix.weight": None,
    "mix.bias": "bias",
    "norm.weight": "of a norm layer",
    "norm.bias": "of a norm layer",
    "frozen.weight": "frozen",
}


def test_each_parameter_says_why_it_does_not_decay() -> None:
    assert reasons(Zoo(), Recipe()) == WHY
    assert decayed_parameters(Zoo(), Recipe()) == ["words.weight", "mix.weight"]
    everything = [name for name in WHY if name != "frozen.weight"]
    assert decayed_parameters(Zoo(), Recipe(decay="all")) == everything


def test_the_magnitude_that_weight_norm_takes_out_does_not_decay() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    assert decayed_parameters(layer, Recipe()) == ["parametrizations.weight.original1"]
    assert reasons(layer, Recipe())["parametrizations.weight.original0"] == "magnitude of weight norm"


def test_a_weight_in_two_places_decays_once() -> None:
    """An embedding that is the output's weight as well."""
    module = RegularizedModule(Zoo(), {"weight_decay": 1.0}, lr=0.1)
    optimizer, _ = module.optimizer_and_schedule(10)
    before = module.network.output.weight.detach().clone()
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(module.network.words.weight.detach(), 0.9 * before)


def test_exceptions_are_added_and_taken_away() -> None:
    recipe = Recipe(include=("places", "scale"), exclude=(r"^mix\.", "scale"))
    assert decayed_parameters(Zoo(), recipe) == ["words.weight", "places.weight"]
    assert reasons(Zoo(), recipe)["mix.weight"] == r"excluded by ^mix\."
    assert reasons(Zoo(), recipe)["scale"] == "excluded by scale"


def test_the_first_expression_that_is_found_takes_a_name() -> None:
    patterns = {"a": "a", "b": "^b", "rest": ""}
    assert assigned(patterns, ["ba", "bc", "cd", "ab"]) == {"a": ["ba", "ab"], "b": ["bc"], "rest": ["cd"]}


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"head\.", "head"),
        (".*", "rest"),
        ("", "rest"),
        (r"^blocks\.(0|1)\.", "blocks-0-1"),
        ("a_b", "a_b"),
        ("ü", "rest"),
    ],
)
def test_a_group_is_named_by_its_expression(pattern: str, name: str) -> None:
    assert group_name(pattern) == name


# -- the study file ------------------------------------------------------------------------------------------------

STUDY = r"""study: grouped
data: {name: digits, init_args: {batch_size: 1077}}
model: {name: mlp, init_args: {hidden: [16], norm: layer}}
optimizer: {name: adamw, schedule: cosine}
space:
  lr: {low: 1e-3, high: 1e-2, log: true}
  weight_decay:
    groups:
      - {match: "^output\\.", name: head, timescale: [0.2, 10], off: true}
      - {match: ".*", timescale: [0.2, 10]}
  dropout: {groups: [{match: "1$", value: 0.0}]}
  l2: {groups: [{match: "^output", low: 1e-6, high: 1e-3, log: true, off: true}]}
budget: {trials: 6, epochs: 20}
search: {batch: 3}
trainer: {accelerator: cpu}
"""


def test_a_group_is_a_key_from_the_study_file_to_the_strength(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    config = load_study(tmp_path / "s.yaml")
    keys = {"lr", "weight_decay:head.timescale", "weight_decay:rest.timescale", "l2:output"}
    assert distributions(config).keys() == keys
    chosen = {"lr": 1e-2, "weight_decay:head.timescale": 20.0, "weight_decay:rest.timescale": 0.5, "l2:output": 1e-4}
    point = configuration(config, chosen, rate_sum=100.0)
    assert point.strengths == {
        "weight_decay:head": 0.0,  # beyond the range is off
        "weight_decay:rest": pytest.approx(1 / (1e-2 * 100 * 0.5)),
        "dropout:1": 0.0,
        "l2:output": 1e-4,
    }
    assert set(baseline(config).strengths.values()) == {0.0}
    assert build_recipe(config).groups["weight_decay"] == {"head": r"^output\.", "rest": ".*"}


def test_each_timescale_is_checked(tmp_path: Path) -> None:
    text = STUDY.replace("timescale: [0.2, 10]}", "timescale: [0.001, 10]}")
    (tmp_path / "s.yaml").write_text(text)
    notes = preview(tmp_path / "s.yaml").warnings
    assert [
        note for note in notes if note.startswith("space.weight_decay:rest.timescale begins at 0.001, where a single")
    ]


FAULTS = {
    "{groups: [{match: a, low: 1, high: 2}, {match: a, low: 1, high: 2}]}": "groups[1] is called a, as one before it; give",
    "{groups: [{match: 'a(', low: 1, high: 2}]}": "groups[0].match is 'a('; allowed is a regular expression of Python (miss",
    "{groups: [{low: 1, high: 2}]}": "groups[0].match is missing; add `match: ...`",
    "{groups: [{match: a}]}": "groups[0] takes a value: NUMBER, or low and high, or choices, or timescale",
    "{groups: [{match: a, low: 2, high: 1}]}": "groups[0] runs from 2 to 1; low must be below high",
    "{groups: [{match: a, low: -1, high: 1}]}": "groups[0].low is -1; weight_decay lies in [0, ∞)",
    "{groups: [{match: a, value: 1, of: true}]}": "groups[0].of is not a known key; did you mean off?",
    "{groups: [{match: a, name: 'b c', value: 1}]}": "groups[0].name is 'b c'; allowed are letters, digits and _ -",
    "{groups: [{match: a, value: 1}], low: 1, high: 2}": "takes a number, or low and high, or choices, or timescale, or gr",
    "{groups: []}": "groups is []; allowed is a list of at least 1",
}


@pytest.mark.parametrize("written", FAULTS)
def test_a_faulty_group_is_told_with_its_line(written: str, tmp_path: Path) -> None:
    start, end = STUDY.index("  weight_decay:"), STUDY.index("  dropout:")
    text = STUDY[:start] + f"  weight_decay: {written}\n" + STUDY[end:]
    assert f"a.yaml:7: space.weight_decay{'.' if FAULTS[written][0] == 'g' else ' '}{FAULTS[written]}" in faults(
        text, tmp_path
    )


def test_only_what_acts_on_parts_can_have_groups(tmp_path: Path) -> None:
    for key in ("label_smoothing", "lr", "model.hidden"):
        text = STUDY.replace(
            "  lr: {low: 1e-3, high: 1e-2, log: true}", f"  {key}: {{groups: [{{match: a, value: 0.1}}]}}"
        )
        assert f"space.{key}.groups: only those of weight_decay, l2, l1, dropout can differ" in faults(text, tmp_path)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            r'space.weight_decay={groups: [{match: "head\\.", low: 1, high: 2}]}',
            "group 'head' takes no parameter that decays",
        ),
        (
            "space.weight_decay={groups: [{match: '', value: 1}, {match: out, value: 2}]}",
            "earlier groups take all that 'out'",
        ),
        (
            "space.dropout={groups: [{match: linear, value: 0.1}]}",
            "takes no layer that drops: 'linear' is in none; they are: dr",
        ),
        (
            "optimizer.decay={exclude: [embed]}",
            "optimizer.decay.exclude: 'embed' is found in no parameter's name; they are",
        ),
        ("optimizer.decay={exclude: [weight]}", "group 'head' takes no parameter that decays: .* they are: none"),
    ],
)
def test_an_expression_that_takes_nothing_is_refused(override: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    with pytest.raises(BuildError, match=text):
        preview(tmp_path / "s.yaml", [override])


def test_what_decays_can_be_changed_in_the_study() -> None:
    config = load_study(yaml_free() | {"optimizer": {"decay": {"rule": "all", "exclude": ["norm"]}}})
    recipe = build_recipe(config)
    assert (recipe.decay, recipe.include, recipe.exclude) == ("all", (), ("norm",))
    assert config.dump()["optimizer"] == {"decay": {"rule": "all", "exclude": ["norm"]}}
    assert load_study(yaml_free() | {"optimizer": {"decay": "all"}}).dump()["optimizer"] == {"decay": "all"}


def test_validate_shows_each_parameter_with_its_strengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # in a narrower terminal cells are broken
    (tmp_path / "s.yaml").write_text(STUDY)
    done = called("validate", str(tmp_path / "s.yaml"), "--params")
    assert done.exit_code == 0, done.output
    lines = [line.split("│")[1:-1] for line in done.output.splitlines() if line.startswith("│")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in lines}
    assert cells["linear1.weight"] == ["16 × 64", "yes", "weight_decay:rest"]
    assert cells["linear1.bias"] == ["16", "no: bias", ""]
    assert cells["output.weight"] == ["10 × 16", "yes", "weight_decay:head, l2:output"]
    assert cells["dropout1"] == ["dropout:1"]


class Best(L.LightningModule):
    """A user's own module, from what `wdsearch best --format yaml` printed."""

    def __init__(self, recommended: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(recommended["init_seed"])
        self.network, self.recommended = MODELS["mlp"](64, 10, hidden=[16], norm="layer"), recommended

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        return loss + self.recommended["strengths"].get("l2:output", 0.0) * self.network.output.weight.square().sum()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        groups: dict[str, list[nn.Parameter]] = {}
        patterns = {key: p for key, p in self.recommended["groups"].items() if key.startswith("weight_decay:")}
        for name, parameter in self.network.named_parameters():
            key = next(key for key, pattern in patterns.items() if re.search(pattern, name))
            groups.setdefault(key if parameter.ndim == 2 else "", []).append(parameter)
        strengths = self.recommended["strengths"]
        parameter_groups = [
            {"params": members, "weight_decay": strengths.get(key, 0.0)} for key, members in groups.items()
        ]
        optimizer = torch.optim.AdamW(parameter_groups, lr=self.recommended["optimizer"]["lr"])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.estimated_stepping_batches)
        return [optimizer], [schedule]


def test_a_study_with_groups_from_the_file_to_a_users_own_training(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    done = wdsearch.run(tmp_path / "s.yaml", home=tmp_path / "home", progress=False)
    assert done.counts["complete"] >= 1
    client = MlflowClient(f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("grouped").experiment_id
    params = [run.data.params for run in client.search_runs([experiment], "tags.`wdsearch.kind` = 'trial'")]
    assert len(params) == 6
    assert all(
        {"weight_decay:head", "weight_decay:rest", "weight_decay:rest.timescale"} <= recorded.keys()
        for recorded in params
    )
    printed = called("best", "grouped", "--format", "yaml", "--home", str(tmp_path / "home")).output
    recommended = yaml.safe_load(printed)
    assert recommended["groups"]["weight_decay:rest"] == ".*"
    module, trainer = Best(recommended), quiet_trainer(recommended["epochs"], "32-true")
    trainer.fit(module, datamodule=DATASETS["digits"](batch_size=1077))
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(recommended["val_loss"], abs=1e-5)
    table = called("best", "grouped", "--home", str(tmp_path / "home")).output
    assert "weight_decay:rest takes what .* is found in" in " ".join(table.split())
