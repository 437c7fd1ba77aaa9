"""Random networks with hooks, state, generators and operations in place: no way of training differs from plain Lightning.

The long form goes on at another seed: `WDSEARCH_FUZZ=20000 WDSEARCH_FUZZ_FROM=0 pytest -m slow tests/population/test_fuzz.py`.
"""

import os
from pathlib import Path

import pytest
from support.fuzzed_trials import silent_difference

FIRST = int(os.environ.get("WDSEARCH_FUZZ_FROM", "0"))
COUNT = int(os.environ.get("WDSEARCH_FUZZ", "500"))

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("seed", range(8))
def test_no_way_of_training_a_random_network_differs_from_plain_lightning(seed: int, tmp_path: Path) -> None:
    assert silent_difference(seed, tmp_path) is None


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_nor_does_any_for_many_networks(tmp_path: Path) -> None:
    differences = [text for seed in range(FIRST, FIRST + COUNT) if (text := silent_difference(seed, tmp_path))]
    assert not differences, "\n".join(differences)
