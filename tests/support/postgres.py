"""A real PostgreSQL of its own for tests: in a temporary folder, on a free port of 127.0.0.1."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import psutil

USER = "wdsearch"


def binaries() -> Path | None:
    """Folder of `initdb` and `postgres`: on the path, or where Debian keeps them."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb") or ""] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_isready").exists()), None)


def free_port() -> int:
    """A port of 127.0.0.1 at which nothing listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Postgres:
    """One server; PostgreSQL refuses to run as root, so under root it runs as the user that its package made."""

    def __init__(self, durable: bool = False) -> None:
        self.durable = durable
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to other users
        self._process: subprocess.Popen[bytes] | None = None
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(self.folder, "postgres")
        init = ["initdb", "-D", str(self.folder / "data"), "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"]
        self._run(*init, "--locale=C.UTF-8")

    @cached_property
    def port(self) -> int:
        """A port that was free when it was first asked for."""
        return free_port()

    def url(self, database: str = "postgres") -> str:
        """A storage's URL, as a user would write it."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, *options: str) -> str:
        """An empty database, and its URL; `options` are createdb's."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, *options, database)
        return self.url(database)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder}
        settings |= {"fsync": "on" if self.durable else "off", "max_connections": 100}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = [self._binary("postgres"), "-D", str(self.folder / "data"), *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as)
        for _ in range(300):
            ready = [self._binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends every connection and shuts down (PostgreSQL's fast mode), SIGQUIT crashes it."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(how)
            self._process.wait()

    def processor_s(self) -> float:
        """Seconds of a processor that it has taken so far, for all its connections."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        alive = [server, *server.children()]
        return sum(sum(process.cpu_times()[:4]) for process in alive)

    def _run(self, name: str, *arguments: str) -> None:
        made = subprocess.run([self._binary(name), *arguments], capture_output=True, text=True, **self._as)
        assert made.returncode == 0, made.stderr

    def _binary(self, name: str) -> str:
        folder = binaries()
        assert folder is not None
        return str(folder / name)


@contextmanager
def running(durable: bool = False) -> Iterator[Postgres]:
    """A server that runs meanwhile, and leaves nothing; a `durable` one waits for the disk at each commit."""
    server = Postgres(durable)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder)
