"""A study's standing as programs read it."""

from pathlib import Path

from support.fabricated import fabricate

from wdsearch.search.status import StudyStatus
from wdsearch.storage.home import Home
from wdsearch.storage.leases import Worker


def test_the_record_of_a_worker_keeps_its_keys(tmp_path: Path) -> None:
    worker = Worker("0a1b2c3d", "node:/studies/small/workers:12345678", True, False, 1.5)
    status = StudyStatus(fabricate(Home(tmp_path)), 8, 4, (worker,), 0, 0, None, None, {})
    assert status.as_dict()["workers"] == [
        {
            "name": "0a1b2c3d",
            "place": "node:/studies/small/workers:12345678",
            "alive": True,
            "released": False,
            "silent_s": 1.5,
        }
    ]
