"""Penalties against the outside: closed-form ridge, and scikit-learn's Lasso and ElasticNet."""

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, Lasso, Ridge
from support.training import train_fused
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset

from wdsearch.tasks.task import Task
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

ROWS = 60
RECIPES = {"sgd": (Recipe("sgd", momentum=0.9), 0.1), "adam": (Recipe("adamw", schedule="cosine"), 0.02)}
EPOCHS = {"sgd": 60, "adamw": 300}
RIDGE, LASSO = [0.0, 0.01, 0.1, 1.0], [0.05, 0.3, 1.0, 3.0]
ELASTIC = [(0.3, 0.1), (1.0, 0.5), (0.1, 1.0)]
PENALTIES = [(0.0, l2) for l2 in RIDGE] + [(l1, 0.0) for l1 in LASSO] + ELASTIC


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Collinear features, of which half matter, and a centred target."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(ROWS, 6))
    features[:, 1] = features[:, 0] + 0.3 * features[:, 1]
    features -= features.mean(0)
    targets = features @ np.array([1.5, 0.0, -2.0, 0.0, 0.7, 0.0]) + 0.3 * generator.normal(size=ROWS)
    return features, targets - targets.mean()


class _Sampler(SequentialSampler):
    def set_epoch(self, epoch: int) -> None:
        """All rows in one batch: every epoch is alike."""


class Rows(L.LightningDataModule):
    """All rows in one batch, so that training is plain descent on the penalised loss."""

    def __init__(self) -> None:
        super().__init__()
        features, targets = rows()
        self.rows = TensorDataset(torch.tensor(features), torch.tensor(targets).unsqueeze(1))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, sampler=_Sampler([0] * 60), batch_size=None, collate_fn=lambda _: self.rows[:])

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, batch_size=ROWS)

    train_eval_dataloader = val_dataloader


def fitted(strengths: list[dict[str, float]], recipe: Recipe, lr: float, epochs: int = 0) -> list[np.ndarray]:
    """Weights of linear models without bias, trained as one population with these strengths."""
    trials = {}
    for number, values in enumerate(strengths):
        network = torch.nn.Linear(6, 1, bias=False)
        torch.nn.init.constant_(network.weight, 0.1)
        trials[number] = RegularizedModule(network, values, lr, recipe, Task("regression"))
    states = train_fused(trials, Rows(), epochs or EPOCHS[recipe.optimizer]).states
    return [states[number]["network.weight"].numpy().ravel() for number in range(len(strengths))]


@pytest.fixture(scope="module", params=["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def weights(request: pytest.FixtureRequest) -> dict[tuple[float, float], np.ndarray]:
    """Weights by their (l1, l2), all trained as one population."""
    recipe, lr = RECIPES[request.param]
    return dict(zip(PENALTIES, fitted([{"l1": l1, "l2": l2} for l1, l2 in PENALTIES], recipe, lr), strict=True))


def test_l2_reaches_closed_form_ridge(weights: dict[tuple[float, float], np.ndarray]) -> None:
    """(1/n)‖y − Xw‖² + λ‖w‖² has its minimum at (XᵀX + nλI)⁻¹Xᵀy, which is scikit-learn's Ridge(alpha=nλ)."""
    features, targets = rows()
    for strength in RIDGE:
        closed = np.linalg.solve(features.T @ features + ROWS * strength * np.eye(6), features.T @ targets)
        sklearns = Ridge(alpha=ROWS * strength, fit_intercept=False).fit(features, targets).coef_
        np.testing.assert_allclose(weights[0.0, strength], closed, atol=1e-6)
        np.testing.assert_allclose(weights[0.0, strength], sklearns, atol=1e-6)


def test_l1_reaches_the_lasso_with_the_same_exact_zeros(weights: dict[tuple[float, float], np.ndarray]) -> None:
    """(1/n)‖y − Xw‖² + λ‖w‖₁ is twice scikit-learn's Lasso(alpha=λ/2)."""
    features, targets = rows()
    zeros = 0
    for strength in LASSO:
        found = weights[strength, 0.0]
        lasso = Lasso(alpha=strength / 2, fit_intercept=False, tol=1e-14, max_iter=1_000_000).fit(features, targets)
        np.testing.assert_allclose(found, lasso.coef_, atol=1e-6)
        assert ((found == 0) == (lasso.coef_ == 0)).all()
        zeros += int((found == 0).sum())
    assert zeros >= 6


def test_both_reach_the_elastic_net(weights: dict[tuple[float, float], np.ndarray]) -> None:
    """(1/n)‖y − Xw‖² + λ₁‖w‖₁ + λ₂‖w‖² is twice ElasticNet with alpha·l1_ratio = λ₁/2, alpha·(1 − l1_ratio) = λ₂."""
    features, targets = rows()
    for l1, l2 in ELASTIC:
        alpha = l1 / 2 + l2
        net = ElasticNet(alpha=alpha, l1_ratio=l1 / 2 / alpha, fit_intercept=False, tol=1e-14, max_iter=1_000_000)
        coefficients = net.fit(features, targets).coef_
        np.testing.assert_allclose(weights[l1, l2], coefficients, atol=1e-6)
        assert ((weights[l1, l2] == 0) == (coefficients == 0)).all()


def test_decoupled_decay_is_torchs_adamw() -> None:
    """A population of one network against plain torch: no Lightning, no wdsearch but the initial weights."""
    features, targets = (torch.tensor(part) for part in rows())
    strengths = [0.0, 0.1, 3.0]
    ours = fitted([{"weight_decay": s} for s in strengths], Recipe("adamw"), 1e-2, epochs=3)
    for strength, weights in zip(strengths, ours, strict=True):
        weight = torch.full((1, 6), 0.1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.AdamW([weight], lr=1e-2, weight_decay=strength)
        for _ in range(3 * 60):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(features @ weight.T, targets.unsqueeze(1)).backward()
            optimizer.step()
        np.testing.assert_allclose(weights, weight.detach().numpy().ravel(), atol=1e-10)


@pytest.mark.parametrize("nesterov", [False, True])
def test_decoupled_decay_under_sgd_is_a_ten_line_loop(nesterov: bool) -> None:
    """SGDW, Loshchilov & Hutter 1711.05101, algorithm 1: w ← w − η·velocity − η·λ·w."""
    features, targets = (torch.tensor(part) for part in rows())
    lr, momentum, decay = 1e-2, 0.9, 0.5
    (ours,) = fitted([{"weight_decay": decay}], Recipe("sgd", momentum=momentum, nesterov=nesterov), lr, epochs=3)
    weight, velocity = torch.full((6,), 0.1, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    for _ in range(3 * 60):
        gradient = 2 / ROWS * features.T @ (features @ weight - targets)
        velocity = momentum * velocity + gradient
        direction = gradient + momentum * velocity if nesterov else velocity
        weight = weight - lr * direction - lr * decay * weight
    np.testing.assert_allclose(ours, weight.numpy(), atol=1e-10)
