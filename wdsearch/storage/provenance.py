"""Provenance of a run: versions of libraries, and the commit of the folder where it ran."""

import subprocess
from functools import cache
from importlib.metadata import version

from wdsearch.plugins import plugin_versions

LIBRARIES = ("wdsearch", "optuna", "lightning", "torch")


@cache
def provenance(libraries: tuple[str, ...] = ()) -> dict[str, str]:
    """Tags `version.<library>`, of plugins too, and `git.commit` (with `+` if there are changes) within a repository.

    >>> provenance()["version.optuna"] == version("optuna")
    True
    """
    numbers = {name: version(name) for name in (*LIBRARIES, *libraries)} | plugin_versions()
    versions = {f"version.{name}": number for name, number in numbers.items()}
    call = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        commit = subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return versions
    return versions | {"git.commit": commit}
