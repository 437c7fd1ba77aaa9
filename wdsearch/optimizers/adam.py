"""Adam, for those whose own training calls torch's Adam.

A strength means the same whatever the optimizer: `weight_decay` is decoupled, `w ← w − η·λ·w`, and under it Adam is AdamW
step by step. They differ in what torch is told: Adam's own `weight_decay` is coupled, so it is the strength `l2` that this
Adam takes exactly, as 2λ, and decoupled decay that asks for AdamW.
"""

import torch

from wdsearch.optimizers._base import Optimizer
from wdsearch.optimizers.adamw import OPTIONS, StackedAdamW, beta1, step_size
from wdsearch.types import TorchWords

adam = Optimizer(
    key="adam",
    summary="Adam (Kingma & Ba 1412.6980); its own decay in torch is l2, with weight_decay it is AdamW",
    torch_class=torch.optim.Adam,
    stacked=StackedAdamW,
    options=OPTIONS,
    own_decay=None,
    step_size=step_size,
    momentum=beta1,
    words=TorchWords(
        name="Adam",
        decoupled="torch.optim.AdamW(weight_decay={})",
        coupled="torch.optim.Adam(weight_decay={})",
        step_size="lr/(sqrt(v_hat)+eps)",
    ),
)
