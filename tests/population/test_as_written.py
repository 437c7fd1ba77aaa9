"""Networks are trained as their authors wrote them: randomness, hooks, state and operations in place count as in torch."""

import re
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.fuzzed_networks import (
    AfterAccumulation,
    Branching,
    Checkpointed,
    CheckpointedReentrant,
    Closure,
    CreatedLate,
    FoundDropout,
    Frozen,
    FrozenNorm,
    FrozenRows,
    FuzzData,
    HookedDropout,
    InObject,
    LayerDrop,
    Previous,
    UnitNorm,
)
from support.training import Ends, largest_difference, train_alone, train_fused
from torch import Tensor, nn
from torch.nn import functional as F

import wdsearch
from wdsearch.errors import BuildError
from wdsearch.population.fusibility import why_alone
from wdsearch.regularizers import REGULARIZERS
from wdsearch.tasks.task import Task
from wdsearch.trial.copying import copied
from wdsearch.trial.functional_dropout import functions_with_rates
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

STRENGTHS = ({"weight_decay": 0.1, "dropout": 0.3}, {"weight_decay": 1.0, "dropout": 0.6})


class Net(nn.Module):
    """A block between two layers."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.block, self.head = nn.Linear(5, 6), build(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.first(x)))


def trial(build: Callable[[], nn.Module], number: int = 0) -> RegularizedModule:
    torch.manual_seed(0)
    return RegularizedModule(Net(build), STRENGTHS[number], seed=1)


def reason(build: Callable[[], nn.Module]) -> str | None:
    return why_alone([trial(build, number) for number in range(2)], *FuzzData().train_dataloader())


def loss_and_gradients(module: RegularizedModule, batch: object) -> tuple[float, Tensor]:
    module.double().train().rewind_noise(0, 0)
    loss = module.objective(batch)
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("build", [Checkpointed, CheckpointedReentrant])
def test_checkpointed_dropout_has_the_gradients_of_the_same_network_without(build: Callable[[], Checkpointed]) -> None:
    class Whole(build):  # type: ignore[misc,valid-type]
        def forward(self, x: Tensor) -> Tensor:
            return self.segment(self.linear(x))

    batch = torch.randn(64, 5, dtype=torch.float64), torch.randint(3, (64,))
    loss, gradients = loss_and_gradients(trial(build), batch)
    expected_loss, expected = loss_and_gradients(trial(Whole), batch)
    assert loss == expected_loss
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=0.0)
    assert gradients.abs().max() > 0


@pytest.mark.parametrize("key", ["early_stopping", "ema", "gradient_clip", "input_noise"])  # of each kind one
def test_trials_with_any_regularizer_are_fused(key: str) -> None:
    def module(share: float) -> RegularizedModule:
        torch.manual_seed(0)
        one = REGULARIZERS[key]
        value = round(one.usual.at(share)) if one.integer else one.usual.at(share)
        return RegularizedModule(Net(lambda: nn.Dropout(0.1)), {key: value}, task=Task(one.tasks[0]))

    batches = [*FuzzData().train_dataloader()]
    if "classification" not in REGULARIZERS[key].tasks:
        batches = [(x, y.float().unsqueeze(1).expand(-1, 3)) for x, y in batches]
    assert why_alone([module(share) for share in (0.0, 0.5, 1.0)], *batches) is None


class KeepsMore(nn.Linear):
    def get_extra_state(self) -> int:
        return 1

    def set_extra_state(self, state: int) -> None:
        assert state == 1


class Columns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.column_stack([x[:, :5], x.mean(1)])


def test_columns_side_by_side_are_torchs_and_are_fused() -> None:
    parts = [torch.randn(4), torch.randn(4, 2), torch.randn(4, 3)]
    with functions_with_rates(Net(Columns)):
        assert torch.equal(torch.column_stack(parts), torch.cat([parts[0].unsqueeze(1), *parts[1:]], 1))
        assert torch.column_stack([torch.tensor(1.0)] * 2).shape == (1, 2)
    assert reason(Columns) is None


class Caching(nn.Module):
    """Puts what it computes into an object of its caller, as attention does with keys; a part of it branches."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.gate = Keys(), Branching()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.keys(x, SimpleNamespace(rows=[])))


class Shared(nn.Module):
    """A part that takes rows by their numbers, the same in all trials, before one that branches."""

    def __init__(self) -> None:
        super().__init__()
        self.some, self.gate = SomeRows(), Branching()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.some(x, torch.ones(len(x), dtype=torch.bool)))


class SomeRows(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 6)

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[rows]


class Keys(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 6)

    def forward(self, x: Tensor, cache: SimpleNamespace) -> Tensor:  # type: ignore[override]
        cache.rows.append(super().forward(x))
        return torch.cat(cache.rows).reshape(x.shape)


class Dropping(nn.Module):
    """Drops by a layer, by a function with the rate of a layer (BERT, timm), or by one with a number (Llama, GCN)."""

    def __init__(self, way: str, rate: float = 0.1) -> None:
        super().__init__()
        self.way, self.rate, self.drop = way, rate, nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "layer":
            return self.drop(x)
        rate = self.drop.p if self.way == "rate of a layer" else self.rate
        if self.way == "attention":
            q = x.unflatten(-1, (2, 3)).unsqueeze(1)
            return F.scaled_dot_product_attention(q, q, q, dropout_p=rate if self.training else 0.0).flatten(1)
        return F.dropout(x, p=rate, training=self.training)


def test_functions_drop_at_the_trials_rate_as_layers_do() -> None:
    batch = torch.randn(64, 5, dtype=torch.float64), torch.randint(3, (64,))
    ways = ("layer", "rate of a layer", "number")
    pairs = [[loss_and_gradients(trial(lambda w=w: Dropping(w), n), batch)[0] for w in ways] for n in range(2)]
    assert all(len(set(losses)) == 1 for losses in pairs)
    assert pairs[0] != pairs[1]
    assert reason(lambda: Dropping("rate of a layer")) is None
    assert reason(lambda: Dropping("number")) is None
    assert reason(lambda: Dropping("attention")) is None


def test_a_number_is_replaced_by_a_searched_rate_alone_and_if_it_drops() -> None:
    batch = torch.randn(64, 5, dtype=torch.float64), torch.randint(3, (64,))

    def loss(network: nn.Module, recipe: Recipe | None = None, **strengths: float) -> float:
        torch.manual_seed(0)
        module = RegularizedModule(Net(lambda: network), strengths, recipe=recipe, seed=1)
        return loss_and_gradients(module, batch)[0]

    whole = loss(Dropping("number", 0.0))
    assert loss(Dropping("number", 0.0), dropout=0.5) == whole, "a rate of 0 stays 0"
    assert loss(Dropping("number", 0.3), dropout=0.0) == pytest.approx(whole, rel=1e-12)
    assert loss(Dropping("attention", 0.3), dropout=0.5) != loss(Dropping("attention", 0.3), dropout=0.1)
    head = Recipe(groups={"dropout": {"head": "."}})
    assert loss(Dropping("number", 0.3), head, **{"dropout:head": 0.5}) == loss(Dropping("number", 0.3)) != whole


def test_attention_with_the_rate_of_a_layer_is_torchs_where_nothing_drops() -> None:
    class Attention(nn.Module):
        def __init__(self, drops: bool) -> None:
            super().__init__()
            self.drops, self.drop = drops, nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            q = x.unflatten(-1, (2, 3)).unsqueeze(1)
            mask = torch.ones(2, 2, dtype=torch.bool).tril()
            rate = self.drop.p if self.drops else 0.0
            return F.scaled_dot_product_attention(q, q, q, attn_mask=mask, dropout_p=rate).flatten(1)

    batch = torch.randn(64, 5, dtype=torch.float64), torch.randint(3, (64,))
    losses = []
    for drops in (True, False):
        torch.manual_seed(0)
        module = RegularizedModule(Net(lambda drops=drops: Attention(drops)), {"dropout": 0.0})
        losses.append(loss_and_gradients(module, batch)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert reason(lambda: Attention(True)) is None


def test_a_rate_that_code_sets_acts() -> None:
    module = RegularizedModule(nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)))
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    x = torch.randn(4, 5)
    assert torch.equal(module.train()(x), module.network[0](x))


def test_layers_are_the_same_objects_with_their_hooks_and_attributes() -> None:
    drop = nn.Dropout(0.1)
    drop.mark = "mine"
    network = nn.Sequential(nn.Linear(5, 3), drop)
    drop.register_forward_hook(lambda *_: torch.zeros(4, 3))
    module = RegularizedModule(network, {"dropout": 0.5})
    assert module.network[1] is drop
    assert drop.mark == "mine"
    assert not module(torch.randn(4, 5)).any()


@pytest.mark.parametrize("build", [HookedDropout, FrozenRows, FrozenNorm, LayerDrop, UnitNorm, Frozen, Checkpointed])
def test_what_people_write_is_fused_where_it_can_be(build: Callable[[], nn.Module]) -> None:
    if build is Checkpointed:
        assert reason(build) is not None, "its segments are computed again outside of vmap"
    else:
        assert reason(build) is None


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (Previous, r"block \(Previous\) keeps previous from one batch to the next"),
        (InObject, r"block \(InObject\) keeps statistics from one batch to the next"),
        (CreatedLate, r"block \(CreatedLate\) keeps rng from one batch to the next"),
        (Closure, r"block \(Closure\) keeps scale from one batch to the next"),
        (AfterAccumulation, r"block.linear.weight has a hook after its gradient is accumulated"),
        (lambda: KeepsMore(6, 6), r"block \(KeepsMore\) keeps extra state, which fused trials cannot hold"),
        (lambda: torch.jit.script(nn.Linear(6, 6)), r"block \(RecursiveScriptModule\) is compiled by torch.jit"),
        (Branching, r"it branches on a tensor's value"),
        (Shared, r"block.gate \(Branching\): it branches on a tensor's value"),
        (Caching, r"block.gate \(Branching\): it branches on a tensor's value"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_what_cannot_be_fused_is_said_in_words(build: Callable[[], nn.Module], words: str) -> None:
    assert re.search(words, str(reason(build)))


def test_a_frozen_row_of_an_embedding_stays_frozen_in_a_population() -> None:
    before = trial(FrozenRows).network.block.linear.weight.detach().double()
    ends = train_fused({number: trial(FrozenRows, number) for number in range(2)}, FuzzData(), 2)
    shares = ends.states[0]["network.block.linear.weight"] / before
    torch.testing.assert_close(shares[:3], shares[0, 0].expand(3, 6), msg="they shrink by their decay alone")
    assert (shares[3:] - shares[0, 0]).abs().max() > 1e-3


def test_a_lone_trial_keeps_the_weights_that_its_network_changes_in_place() -> None:
    (lone,) = train_fused({0: trial(UnitNorm)}, FuzzData(), 2).states.values()
    alone = trial(UnitNorm)
    train_alone(alone, FuzzData(), 2)
    assert largest_difference(alone.state_dict(), lone) <= 1e-12


@pytest.mark.parametrize("build", [LayerDrop, Previous, UnitNorm, FoundDropout])
def test_a_trials_numbers_do_not_depend_on_its_neighbours(build: Callable[[], nn.Module]) -> None:
    """Not on how many there are, nor on whether one leaves, whatever the network draws, keeps or changes in place."""
    alone, fuse = trial(build), reason(build) is None
    train_alone(alone, FuzzData(), 2)
    groups = [
        train_fused(
            {number: trial(build, number) for number in range(2)}, FuzzData(), 2, Ends(prune={1: 1}), fuse=fuse
        ),
        train_fused({number: trial(build, number) for number in range(2)}, FuzzData(), 2, max_fused=1, fuse=fuse),
        train_fused({0: trial(build)}, FuzzData(), 2, fuse=fuse),
    ]
    for ends in groups:
        assert largest_difference(alone.state_dict(), ends.states[0]) <= (1e-12 if fuse else 0.0)


def test_dropout_that_stays_on_in_evaluation_does_so_and_can_be_searched() -> None:
    module, x = trial(FoundDropout), torch.randn(64, 5)
    module.eval().rewind_noise(0, 0)
    first = module(x)
    assert not torch.equal(module(x), first), "each call draws anew"
    module.rewind_noise(0, 0)
    assert torch.equal(module(x), first)
    assert module.members["dropout"] == ["network.block.drop"]


def test_a_network_that_changes_its_inputs_gets_each_batch_once() -> None:
    class Normalises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.sub_(0.3).div_(0.7))

    def module(number: int) -> RegularizedModule:
        torch.manual_seed(0)
        return RegularizedModule(Normalises(), {"weight_decay": float(number)})

    for fuse in (True, False):
        ends = train_fused({number: module(number) for number in range(3)}, FuzzData(), 2, fuse=fuse, max_fused=2)
        for number in range(3):
            alone = module(number)
            train_alone(alone, FuzzData(), 2)
            assert largest_difference(alone.state_dict(), ends.states[number]) <= (1e-12 if fuse else 0.0)


def test_an_object_that_refers_to_itself_is_refused_as_model() -> None:
    network = Net(FrozenRows)
    network.block.forward = lambda x: network.head(x)
    study = {
        "study": "objects",
        "space": {"weight_decay": {"low": 0.1, "high": 1.0}},
        "budget": {"trials": 2, "epochs": 1},
    }
    with pytest.raises(BuildError, match=r"the function in block.forward refers to the network itself.*give its class"):
        wdsearch.run(study | {"model": network, "data": FuzzData()}, home="unused", progress=False)


def test_a_copy_has_the_hooks_and_marks_of_parameters() -> None:
    network = Net(FrozenRows)
    network.head.weight.mark = "mine"
    twin = copied(network)
    assert twin.head.weight.mark == "mine"
    twin(torch.randn(4, 5)).sum().backward()
    assert not twin.block.linear.weight.grad[:3].any()
    assert twin.block.linear.weight.grad[3:].any()
    assert network.block.linear.weight.grad is None


def test_numpys_generator_in_a_layer_is_rewound_for_each_trial_and_batch() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rng = np.random.default_rng()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.rng.random()

    one, other = (
        loss_and_gradients(trial(Noisy), (torch.ones(4, 5).double(), torch.tensor([0, 1, 2, 0])))[0] for _ in "12"
    )
    assert one == other
    assert reason(Noisy) is None
