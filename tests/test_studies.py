"""Every study that we ship runs as it stands; here with a small budget."""

from pathlib import Path

import pytest

import wdsearch

STUDIES = sorted((Path(__file__).parent.parent / "studies").rglob("*.yaml"))


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.slow] * ("transformer" in file.stem), id=file.stem) for file in STUDIES],
)
def test_a_shipped_study_runs(file: Path, tmp_path: Path) -> None:
    small = ["budget.trials=2", "budget.epochs=8", "search.batch=2", "search.pruner=none"]
    study = wdsearch.run(file, small, home=tmp_path, progress=False)
    assert study.study == file.stem
    assert study.counts["complete"] == 2
    assert study.best is not None
    assert study.baseline is not None
    assert (study.folder / "gap.png").stat().st_size > 10_000
