"""Networks with computed, sparse or complex weights, masks and extra state train as in a plain loop of torch."""

from typing import Any

import lightning as L
import pytest
import torch
from support.training import train_fused
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from wdsearch.population.fusibility import why_alone
from wdsearch.trial.module import RegularizedModule

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*nested tensors.*:UserWarning")
WORDS, WIDTH, CLASSES = 11, 8, 3


class Tokens(L.LightningDataModule):
    """Five tokens a row, of which 0 is padding."""

    def train_dataloader(self) -> DataLoader:
        tokens = torch.randint(WORDS, (40, 5), generator=torch.Generator().manual_seed(0))
        tokens[:, 0] = 1
        return DataLoader(TensorDataset(tokens, tokens.sum(1) % CLASSES), batch_size=16)

    val_dataloader = train_eval_dataloader = train_dataloader


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH, sparse=isinstance(self, Sparse))
        self.inner, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(self.embed(tokens).mean(1))))


class Sparse(Base):
    """Its reference has dense gradients, as AdamW takes no others."""


class Padded(Base):
    """torch's encoder, which makes nested tensors of rows with padding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.0, batch_first=True), 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens), src_key_padding_mask=tokens == 0)[:, 0])


class OldNorm(Base):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.weight_norm(self.inner)


class Pruned(Base):
    def __init__(self) -> None:
        super().__init__()
        prune.l1_unstructured(self.inner, "weight", 0.5)


class Extra(Base):
    def get_extra_state(self) -> dict[str, Any]:
        return {"version": 2}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        assert state == {"version": 2}


class Complex(Base):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.mix = nn.Parameter(0.3 * torch.randn(WIDTH // 2 + 1, WIDTH, dtype=torch.complex64))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head((torch.fft.rfft(self.embed(tokens).mean(1)) @ self.inner.mix).abs())


def built(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind()


def plain_loop(network: nn.Module, decayed: list[str]) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, nn.Embedding):
            layer.sparse = False
    named = dict(network.named_parameters())
    rest = [value for name, value in named.items() if name not in decayed]
    groups = [{"params": [named[name] for name in decayed], "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    for _ in range(2):
        for tokens, targets in Tokens().train_dataloader():
            optimizer.zero_grad()
            F.cross_entropy(network(tokens), targets).backward()
            optimizer.step()
    return network


@pytest.mark.parametrize("kind", [Sparse, Padded, OldNorm, Pruned, Extra, Complex])
def test_it_trains_as_in_a_plain_loop_of_torch(kind: type[nn.Module]) -> None:
    def trial() -> RegularizedModule:
        return RegularizedModule(built(kind), {"weight_decay": 0.5}, lr=0.01)

    alone = why_alone([trial() for _ in range(3)], next(iter(Tokens().train_dataloader())))
    ends = train_fused({0: trial()}, Tokens(), 2, precision="32-true", fuse=alone is None)
    decayed = [name.removeprefix("network.") for name in trial().decayed]
    for name, value in plain_loop(built(kind), decayed).named_parameters():
        if name.endswith("in_proj_bias"):  # of the keys the gradient is 0 but for rounding, which Adam enlarges
            continue
        torch.testing.assert_close(ends.states[0][f"network.{name}"], value.detach(), rtol=1e-4, atol=2e-5)


def test_penalties_of_complex_weights_go_by_the_modulus() -> None:
    network = nn.Module()
    network.mix = nn.Parameter(torch.tensor([[3.0 + 4.0j, 0.3 + 0.4j]]).T.repeat(1, 2))
    module = RegularizedModule(network, {"l1": 1.0, "l2": 0.5})
    assert module.decayed == ["network.mix"]
    strengths = {key: torch.tensor(value) for key, value in {"l1": 1.0, "l2": 0.5}.items()}
    shrunk = module.after_prox("network.mix", network.mix.detach(), torch.tensor(1.0), strengths)
    torch.testing.assert_close(shrunk.abs(), torch.tensor([[4.0, 4.0], [0.0, 0.0]]))
    penalty = dict(module.acting("penalty"))["l2"](module.parameters_named(module.decayed), strengths["l2"])
    torch.testing.assert_close(penalty, torch.tensor(0.5 * 2 * (25.0 + 0.25)))
