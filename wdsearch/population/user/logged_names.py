"""Names under which a user's module logs: the quantity and the side that they mean, and whether larger is better."""

import re
from collections.abc import Collection, Mapping

from wdsearch.trial.result import flat_name

_VALIDATION = "validation|valid|val|eval|dev"
_BEFORE = re.compile(rf"^(?:{_VALIDATION})[_/ .-]+(?=.)", re.IGNORECASE)
_BEHIND = re.compile(rf"(?<=.)[_/ .-]+(?:{_VALIDATION})$", re.IGNORECASE)
_LOADER = re.compile(r"/dataloader_idx_(\d+)$")
_SMALLER = re.compile(
    r"loss|err|mse|rmse|mae|mape|nll|bce|perplexity|ppl|entropy|distance|divergence|deviance|regret|cost|energy|residual"
    r"|(?:^|[_/ ])(?:l1|l2|ce|kl|fid|wer|cer|per|ece|mad|eer|bpd|bpc|crps|brier|huber|hinge|pinball|quantile)(?:$|[_/ @])",
    re.IGNORECASE,
)
_LARGER = re.compile(
    r"acc|auc|auroc|precision|recall|iou|dice|bleu|rouge|meteor|psnr|ssim|score|corr|pearson|spearman|kendall|kappa|mcc"
    r"|matthews|jaccard|ndcg|mrr|hit|top|sensitivity|specificity|reward|return|likelihood|elbo|purity|rand|similarity"
    r"|explained|agreement|coverage|(?:^|[_/ ])(?:f1|f2|fbeta|r2|map|ap|nmi|ari|sdr|snr|pesq|stoi|logp|ll)(?:$|[_/ @(])",
    re.IGNORECASE,
)


def quantity_of(name: str) -> str:
    """Quantity that a logged name means, without the side; that of several validation loaders keeps the loader's number.

    >>> [quantity_of(name) for name in ("val_loss", "val/acc", "Loss/val", "perplexity", "val_loss/dataloader_idx_1")]
    ['loss', 'acc', 'loss', 'perplexity', 'loss/dataloader_idx_1']
    """
    loader = _LOADER.search(name)
    bare = name[: loader.start()] if loader else name
    quantity = _BEHIND.sub("", _BEFORE.sub("", bare, count=1), count=1)
    quantity = "loss" if quantity.lower() == "loss" else quantity
    return quantity + (loader.group() if loader else "")


def larger_is_better(name: str) -> bool:
    """Guess from a name; an unknown one is taken for a loss.

    >>> [larger_is_better(name) for name in ("val_acc", "val_mape", "val/hit@2", "val_pinball", "val_f1(macro)")]
    [True, False, True, False, True]
    """
    return bool(_LARGER.search(name)) and not _SMALLER.search(name)


def metrics_of(
    validation: Mapping[str, float], train: Mapping[str, float], larger: Mapping[str, bool], goals: Collection[str] = ()
) -> dict[str, float]:
    """Metrics of values that a module logged on validation rows and on training rows, by their quantities.

    Each quantity has `/train`, `/val` and `/gap`, signed so that overfitting is positive; `larger` says of some names whether
    larger is better. Every name stays one by which an objective finds its value; of two names of a quantity, one in `goals`
    goes first. `loss` is that of the first validation loader, if there are several.

    >>> metrics_of({"val_acc": 0.5, "epochs": 3.0}, {"val_acc": 0.75}, {})
    {'acc/train': 0.75, 'acc/val': 0.5, 'acc/gap': 0.25, 'epochs': 3.0}
    """
    metrics: dict[str, float] = {}
    for name in sorted(train, key=lambda name: name not in goals):
        quantity = quantity_of(name)
        if (
            f"{quantity}/gap" in metrics
            or name not in validation
            or name.removesuffix("_epoch") in train.keys() - {name}
        ):
            continue
        sign = -1.0 if larger.get(name, larger_is_better(name)) else 1.0
        on_both = {"train": train[name], "val": validation[name], "gap": sign * (validation[name] - train[name])}
        metrics |= {f"{quantity}/{side}": value for side, value in on_both.items()}
    for side in ("train", "val", "gap"):
        first = f"loss/dataloader_idx_0/{side}"
        if first in metrics:
            metrics.setdefault(f"loss/{side}", metrics[first])
    flat_names = {flat_name(name) for name in metrics}
    return metrics | {name: value for name, value in validation.items() if flat_name(name) not in flat_names}
