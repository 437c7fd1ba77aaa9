"""Adam, for users whose training code calls torch's Adam.

A strength has the same meaning for every optimizer: `weight_decay` is decoupled, `w ← w − η·λ·w`, with which Adam equals AdamW
step by step. Their equivalents in torch differ: Adam's `weight_decay` is coupled, so that it takes the strength `l2` as 2λ,
while decoupled decay needs torch's AdamW.
"""

import torch

from wdsearch.optimizers._base import Optimizer
from wdsearch.optimizers.adamw import OPTIONS, STEP_SIZE, StackedAdamW, momentum, step_size
from wdsearch.types import TorchWords

adam = Optimizer(
    key="adam",
    summary="Adam (Kingma & Ba 1412.6980); its own decay in torch is l2, with weight_decay it is AdamW",
    torch_class=torch.optim.Adam,
    stacked=StackedAdamW,
    options=OPTIONS,
    own_decay=None,
    step_size=step_size,
    momentum=momentum,
    words=TorchWords(
        name="Adam",
        decoupled="torch.optim.AdamW(weight_decay={})",
        coupled="torch.optim.Adam(weight_decay={})",
        step_size="lr/(sqrt(v_hat)+eps)",
        step_size_code=STEP_SIZE,
    ),
)
