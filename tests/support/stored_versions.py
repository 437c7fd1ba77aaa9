"""Studies that an earlier version began, as `tests/storage/earlier/make.py` stored them: packed, and unpacked on this machine."""

import gzip
import io
import json
import platform
import sqlite3
import tarfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sql
import torch

EARLIER = Path(__file__).parents[1] / "storage" / "earlier"
NODE, PROJECT = "machine.example", "/home/user/project"
"""Stand in what is stored for the machine's name and for the folder of the studies."""
EXPECTED = "expected.json"
LIBRARIES = ("torch", "numpy", "optuna", "scikit-learn")
SQLITE, POSTGRESQL = "sqlite", "postgresql"


@dataclass(frozen=True)
class StoredVersion:
    """A folder with the states that one version left: an archive for each storage, a dump of PostgreSQL, what is expected."""

    folder: Path

    @property
    def name(self) -> str:
        """The version."""
        return self.folder.name

    @property
    def dump(self) -> Path:
        """The SQL text of the PostgreSQL database."""
        return self.folder / f"{POSTGRESQL}.sql.gz"

    def archive(self, storage: str) -> Path:
        """The project folder whose studies lie in a storage: study files, and the home folder."""
        return self.folder / f"{storage}.tar.gz"

    def expected(self) -> dict[str, Any]:
        """Numbers to which the version itself brought its studies, by their files, and what it ran on."""
        content: dict[str, Any] = json.loads((self.folder / EXPECTED).read_text())
        return content

    def unpack(self, storage: str, project: Path) -> None:
        """Lay a project out in an empty folder, as if it had always been there."""
        with tarfile.open(self.archive(storage)) as archive:
            archive.extraction_filter = getattr(
                tarfile, "data_filter", lambda member, _: member
            )  # Python 3.11.4 has it
            archive.extractall(project)
        for path in home_of(project).rglob("*.db"):
            replace_text(path, PROJECT, str(project))
            path.rename(path.with_name(path.name.replace(f"@{NODE}.", f"@{platform.node()}.")))

    def restore(self, url: str, project: Path) -> None:
        """Load the dump into an empty database; its project lies in `project`."""
        text = gzip.decompress(self.dump.read_bytes()).decode()
        with psycopg.connect(url) as database:
            database.execute(text.replace(PROJECT, str(project)).encode())


def stored_versions() -> list[StoredVersion]:
    """All that are stored, by their names."""
    return [StoredVersion(path.parent) for path in sorted(EARLIER.glob(f"*/{EXPECTED}"))]


def home_of(project: Path) -> Path:
    """The home folder of a project."""
    return project / ".wdsearch"


def settle_workers(engine: sql.Engine) -> None:
    """Let the workers that were killed be those of this machine, so that the next one here goes on as one of them."""
    same = sql.text("UPDATE wdsearch_workers SET place = replace(place, :stored, :here)")
    with engine.begin() as database:
        database.execute(same, {"stored": f"{NODE}:", "here": f"{platform.node()}:"})


def replace_text(path: Path, old: str, new: str) -> None:
    """Replace a text wherever it stands in a SQLite file, and leave no trace of it."""
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for column in [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]:
                change = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'
                database.execute(change, (old, new, old))
        database.commit()
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def pack(target: Path, folder: Path, files: Iterable[Path]) -> None:
    """Write an archive that has the same bytes for the same files, whoever makes it and when."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(files):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size, entry.mode = path.stat().st_size, 0o644
            archive.addfile(entry, io.BytesIO(path.read_bytes()))
    target.write_bytes(gzip.compress(content.getvalue(), mtime=0))


def numbers_of(result: Any) -> list[dict[str, Any]]:
    """Outcomes of a study's trials, by number: settings, how each ended, its metrics to the last bit."""
    return [
        {"number": trial.number, "state": trial.state, "values": list(trial.values)}
        | {name: getattr(trial.result, name) for name in ("epochs", "metrics", "lr", "strengths", "model")}
        for trial in result.trials
    ]


def libraries() -> dict[str, str]:
    """The versions on which a result may depend."""
    return {name: version(name) for name in LIBRARIES}


def processor() -> str:
    """A digest of what rounds: two processors of one digest give the same bits."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else [platform.processor()]
    model = next((line for line in lines if line.startswith("model name")), lines[0])
    capability = torch.backends.cpu.get_cpu_capability()
    return blake2b(f"{platform.machine()} {model} {capability}".encode(), digest_size=8).hexdigest()
