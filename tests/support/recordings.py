"""A small record that trackers are tested with: how it is written, and whether it is whole when it is read back."""

import math
from pathlib import Path

from support.trackers import READERS, Recorded

from wdsearch.storage.home import Home
from wdsearch.tracking import open_tracker
from wdsearch.tracking.tracker import DESCRIPTION, Tracker

DATASET = {"name": "digits", "digest": "0123456789abcdef", "source_type": "code", "source": "{}"}
PARAMS = {"weight_decay": 0.1, "hidden": [64, 64], "early_stopping": math.inf}
TAGS = {"wdsearch.kind": "trial", "seed": "0", DESCRIPTION: "# λ\nof *this* trial"}


def values(epoch: int) -> dict[str, float]:
    return {"loss/train": 1.0 / (epoch + 1), "loss/val": 2.0 / (epoch + 1)}


def points(epochs: int) -> dict[str, list[tuple[int, float]]]:
    return {name: [(epoch, values(epoch)[name]) for epoch in range(epochs)] for name in values(0)}


def begun(name: str, home: Path, token: str = "1a2b") -> Tracker:
    """A study that is begun, or taken up by one more worker."""
    tracker = open_tracker(name, Home(home), "small")
    tracker.start_study({"epochs": 9}, {"seed": "0"}, DATASET, token)
    return tracker


def train(tracker: Tracker, key: str, epochs: int, first: int = 0) -> None:
    tracker.start_trial(key, PARAMS, TAGS, DATASET)
    for epoch in range(first, epochs):
        tracker.log(key, epoch, values(epoch))
        tracker.flush()


def end(tracker: Tracker, key: str, epochs: int) -> None:
    tracker.end_trial(key, "COMPLETE", {"val_loss": 0.25}, {"wdsearch.end": "budget"}, epochs)
    tracker.flush()


def read(name: str, home: Path) -> dict[str, Recorded]:
    return READERS[name](home, "small")


def assert_whole(record: Recorded, epochs: int) -> None:
    """All of `train` and `end` is there, once."""
    assert record.state == "COMPLETE"
    assert record.points == points(epochs)
    assert record.metrics["val_loss"] == 0.25
    assert record.params == {name: str(value) for name, value in PARAMS.items()}
    assert record.tags.items() >= {"wdsearch.kind": "trial", "seed": "0", "wdsearch.end": "budget"}.items()
    assert TAGS[DESCRIPTION] in record.tags.values()
    assert record.dataset == DATASET["digest"]
