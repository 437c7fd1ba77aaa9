"""An exponential moving average of the weights, by which the trial is judged."""

from wdsearch.regularizers._base import Regularizer
from wdsearch.types import Interval, Params, Range, Scalar


def _copies(weights: Params) -> Params:
    return {name: weight.clone() for name, weight in weights.items()}


def _after_step(weights: Params, state: Params, step: int, strength: Scalar) -> tuple[Params, Params]:
    """average ← decay·average + (1 − decay)·weights (Polyak & Juditsky 1992, with Tarvainen & Valpola's weights, 1703.01780).

    The first step's weights are taken as they are, as by torch's AveragedModel. Two products and a sum, each rounded by
    itself: torch's lerp rounds once or twice, by where an entry lies in memory.
    """
    if step == 1:
        return weights, _copies(weights)
    return weights, {name: strength * state[name] + (1.0 - strength) * weight for name, weight in weights.items()}


ema = Regularizer(
    key="ema",
    summary=(
        "decay of an exponential moving average of the weights after each step, by which the trial is judged "
        "(Tarvainen & Valpola 1703.01780). What counts is the logarithm of 1 − decay: search choices "
        "such as 0.9, 0.99, 0.999. The statistics of norm layers are not averaged, as in torch's AveragedModel"
    ),
    unit="share of the average that a step keeps; it remembers about 1/(1 − decay) steps",
    neutral=0.0,
    domain=Interval(0.0, 1.0, high_open=True),
    usual=Range(0.9, 0.999),
    torch=lambda strength, _: (
        f"torch.optim.swa_utils: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn({strength:.6g})); "
        "update_parameters(model) after each step, and evaluate the averaged model"
    ),
    init_state=_copies,
    after_step=_after_step,
    evaluated=lambda weights, state: state,
    all_parameters=True,
    code="{strength}",
)
