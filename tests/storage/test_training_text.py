"""The text of a trial's training, run by plain torch on the trial's batches, gives the trial's weights.

All in 64 bits and with the trial's own draws for dropout and input noise, so that differences are those of rounding.
"""

from itertools import product
from typing import Any

import pytest
from support.plain_torch import distance, factory_of, run_text, text_of, trained

from wdsearch.optimizers import OPTIMIZERS
from wdsearch.regularizers import REGULARIZERS
from wdsearch.study.space import Configuration

ROUNDING = 1e-9
STRENGTH = {
    "weight_decay": 3.0,
    "l2": 0.05,
    "l1": 0.01,
    "dropout": 0.4,
    "input_noise": 0.3,
    "label_smoothing": 0.2,
    "gradient_clip": 0.05,
    "ema": 0.7,
    "early_stopping": 1.0,
}
RATE = {"sgd": 0.01}
SCHEDULES = {"constant": {}, "warm cosine": {"schedule": "cosine", "warmup": 0.3}}
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "init_args": {"hidden": [8]}},
    "batch norm": {"name": "mlp", "init_args": {"hidden": [8], "norm": "batch"}},
    "conv": {"name": "convnet", "init_args": {"channels": [3]}},
    "attention": {"name": "transformer", "init_args": {"patch": 16, "width": 8, "heads": 2, "blocks": 1}},
}
DATA = {"conv": {"name": "digits", "init_args": {"batch_size": 400}}}


def apart(key: str, optimizer: str, schedule: str, network: str, fuse: bool = True) -> float:
    """Distance of a trial's weights from those of its text."""
    factory = factory_of(
        {key: STRENGTH[key]}, optimizer={"name": optimizer, **SCHEDULES[schedule]}, model=NETWORKS[network]
    )
    configuration = Configuration(RATE.get(optimizer, 1e-3), {key: STRENGTH[key]}, {})
    expected = trained(factory, configuration, fuse)
    return distance(run_text(text_of(factory, configuration), factory, configuration), expected)


SOME = [
    (key, optimizer, list(SCHEDULES)[(i + j) % 2], list(NETWORKS)[(i + j) % len(NETWORKS)])
    for (i, key), (j, optimizer) in product(enumerate(STRENGTH), enumerate(("adamw", "adam", "sgd", "radam")))
]


def test_every_regularizer_and_optimizer_is_tried() -> None:
    assert STRENGTH.keys() == REGULARIZERS.keys()
    assert {optimizer for _, optimizer, *_ in SOME} == OPTIMIZERS.keys()


@pytest.mark.parametrize(("key", "optimizer", "schedule", "network"), SOME)
def test_its_text_gives_the_trials_weights(key: str, optimizer: str, schedule: str, network: str) -> None:
    assert apart(key, optimizer, schedule, network) < ROUNDING
