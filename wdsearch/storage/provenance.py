"""What a run was made with: versions, and the commit of the folder where it ran."""

import subprocess
from functools import cache
from importlib.metadata import version

LIBRARIES = ("wdsearch", "optuna", "lightning", "torch")


@cache
def provenance(libraries: tuple[str, ...] = ()) -> dict[str, str]:
    """Tags `version.<library>`, and `git.commit` with `+` if there are changes, outside a repository without it."""
    versions = {f"version.{name}": version(name) for name in (*LIBRARIES, *libraries)}
    call = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return versions
    return versions | {"git.commit": found}
