"""`wdsearch storage check` says what a storage is, whether it can be used, and for how many workers."""

import json
from pathlib import Path

import pytest
from support.processes import command

from wdsearch.cli.storage_check import storage_lines
from wdsearch.storage.check import Finding, StorageReport, examine_storage
from wdsearch.storage.home import Home


def test_a_local_file_is_for_workers_of_this_machine(tmp_path: Path) -> None:
    report = examine_storage(Home(tmp_path))
    head, *findings, last = [line.plain for line in storage_lines(report)]
    assert head == f"sqlite  sqlite:///{tmp_path / 'optuna.db'}"
    assert all(line.startswith(("good  ", "note  ")) for line in findings)
    assert last == "for   workers on this machine alone"


@pytest.mark.parametrize(("workers", "limit"), [(None, ""), (7, ", up to 7 with the connections that are free")])
def test_a_server_is_for_workers_of_several_machines(workers: int | None, limit: str) -> None:
    findings = (Finding("good", "it answers"), Finding("note", "far [/] away"))
    lines = storage_lines(StorageReport("postgresql://[::1]/studies", "postgresql", findings, True, workers))
    assert [line.plain for line in lines] == [
        "postgresql  postgresql://[::1]/studies",
        "good  it answers",
        "note  far [/] away",
        f"for   workers on several machines{limit}",
    ]


def test_one_that_cannot_be_used_ends_the_command_with_1(tmp_path: Path) -> None:
    done = command("storage", "check", "sqlite://", folder=tmp_path)
    assert done.returncode == 1
    assert "bad   a database in memory is gone when the process ends" in " ".join(done.stdout.split(" "))
    assert "for   workers" not in done.stdout
    as_json = command("storage", "check", "nonsense", "--json", folder=tmp_path)
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["usable"] is False
