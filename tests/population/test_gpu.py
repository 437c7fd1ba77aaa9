"""On a GPU: trials are fused as alone there too, studies end as on a CPU, and no memory or interruption changes them."""

import gc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import users_module as solo
from support.commands import FILE, wdsearch
from support.killed import EVERY_EPOCH
from support.killed import searched as killed
from support.networks import BFLOAT16, SMALL, VARIANTS, data, trial
from support.studies import STUDY, searched, told
from support.training import distance_from_alone, largest_difference, train_alone, train_fused
from support.zoo import ZOO, Counting, ZooData
from support.zoo_trials import trial as of_the_zoo

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.trial.module import RegularizedModule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU on this machine"),
]
GPU: dict[str, Any] = {"accelerator": "gpu"}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_fused_trial_of_each_network_equals_training_it_alone_whatever_lies_beside_it(name: str) -> None:
    build = partial(trial, name)
    together = train_fused({number: build(number) for number in range(4)}, data(240), 3, **GPU)
    assert distance_from_alone(together, build, data(240), 3, **GPU) < 1e-9
    others = train_fused({number: build(number) for number in (6, 1, 5)}, data(240), 3, max_fused=2, **GPU)
    assert largest_difference(together.states[1], others.states[1]) < 1e-9
    assert largest_difference(together.states[1], together.states[2]) > 1e-5


@pytest.mark.parametrize("name", ZOO)
def test_what_is_found_out_about_a_users_network_on_the_cpu_holds_on_the_gpu(name: str) -> None:
    build, rows = partial(of_the_zoo, name), partial(ZooData, ZOO[name].batch)
    ends = train_fused({number: build(number) for number in range(3)}, rows(), 2, fuse=ZOO[name].alone is None, **GPU)
    assert distance_from_alone(ends, build, rows(), 2, **GPU) < 1e-9


@pytest.mark.parametrize("name", SMALL)
def test_in_bfloat16_fused_and_alone_agree_as_closely_as_it_rounds(name: str) -> None:
    options = GPU | {"precision": "bf16-mixed"}
    ends = train_fused({number: trial(name, number) for number in range(4)}, data(240), 2, **options)
    for number, epochs in ends.epochs.items():
        trainer = train_alone(trial(name, number), data(240), 2, **options)
        for key in ("loss/objective", "loss/train", "loss/val"):
            expected = float(trainer.callback_metrics[key])
            assert epochs[-1].metrics[key] == pytest.approx(expected, rel=BFLOAT16), (number, key)


@pytest.mark.parametrize("precision", [32, "bf16-mixed"])
def test_a_study_says_that_it_was_trained_on_the_gpu_and_how(tmp_path: Path, precision: object) -> None:
    result = searched(tmp_path, trainer={"accelerator": "auto", "precision": precision})
    bits = precision if isinstance(precision, str) else f"{precision} bits"
    where = f"on cuda ({torch.cuda.get_device_name()}), in {bits}; fused, up to "
    assert result.training.startswith(where), result.training
    assert result.counts["complete"] + result.counts["pruned"] == 14
    assert result.best is not None
    assert result.best.values[0] < 0.6
    assert result.memory["peak"] > 2**20


def test_what_best_recommends_gives_the_same_loss_in_plain_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WDSEARCH_HOME")
    (tmp_path / "tiny.yaml").write_text(FILE)
    done = wdsearch("run", "tiny.yaml", "--set", "trainer.precision=64", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert f"on cuda ({torch.cuda.get_device_name()}), in 64 bits" in " ".join(done.stdout.split())
    found = yaml.safe_load(wdsearch("best", "tiny", "--format", "yaml", folder=tmp_path).stdout)
    torch.manual_seed(found["init_seed"])
    network = MODELS["mlp"](64, 10, hidden=[8])
    module = RegularizedModule(network, found["strengths"], found["optimizer"]["lr"])
    trainer = train_alone(module, DATASETS["digits"](), found["epochs"], **GPU)
    assert float(trainer.callback_metrics["loss/val"]) == pytest.approx(found["val_loss"], abs=1e-9)


@pytest.mark.parametrize("model", [None, Counting], ids=["fused", "one after another"])
def test_a_study_that_is_killed_again_and_again_goes_on_from_its_checkpoint(tmp_path: Path, model: type | None) -> None:
    space = {key: STUDY["space"][key] for key in ("lr", "dropout", "early_stopping")}
    study = STUDY | {"trainer": GPU} | ({"data": ZooData(), "model": model, "space": space} if model else {})
    expected = killed(tmp_path / "calm", study=study)
    again = killed(tmp_path / "home", [61] * 4, study, constants=EVERY_EPOCH)
    assert told(again) == told(expected)
    assert again.baseline == expected.baseline


def test_out_of_memory_fewer_trials_share_a_call_and_the_winner_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = {
        "data": {"name": "mnist1d", "init_args": {"batch_size": 3200}},
        "model": {"name": "mlp", "init_args": {"hidden": [256, 256]}},
        "space": {"weight_decay": {"low": 0.0, "high": 1.0}, "dropout": {"low": 0.0, "high": 0.5}},
        "budget": {"trials": 32, "epochs": 2},
        "search": {"batch": 16, "sampler": "random", "pruner": "none"},
        "trainer": GPU,
    }
    torch.cuda.reset_peak_memory_stats()
    free = searched(tmp_path / "free", **wide)
    assert 0.5 < free.memory["estimated"] / free.memory["peak"] < 2.0
    gc.collect()
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(0.7 * free.memory["peak"] / torch.cuda.mem_get_info()[1])
        short = searched(tmp_path / "short", **wide)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory with 33 trials in a call: going on with 16" in " ".join(capsys.readouterr().err.split())
    assert short.counts == free.counts
    assert short.best.number == free.best.number
    assert short.best.values[0] == pytest.approx(free.best.values[0], abs=1e-4)


def test_a_lightning_module_is_trained_there_as_by_plain_lightning(tmp_path: Path) -> None:
    result = solo.searched(tmp_path, trainer=GPU, budget={"trials": 2, "epochs": 4})
    assert result.training.startswith("on cuda"), result.training
    for one in result.trials:
        _, trainer = solo.trained_alone(one.result, ZooData(), **GPU)
        assert one.result.metrics["val_loss"] == pytest.approx(float(trainer.callback_metrics["val_loss"]), abs=1e-6)
