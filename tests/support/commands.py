"""Commands called in this process, and by a person in a folder."""

import subprocess
from pathlib import Path

from support.processes import command
from typer.testing import CliRunner, Result

from wdsearch.cli.app import app


def called(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


FILE = """study: tiny
data: {name: digits}
model: {name: mlp, init_args: {hidden: [8]}}
space:
  weight_decay: {low: 1e-4, high: 10, log: true, off: true}
  dropout: {low: 0.0, high: 0.5}
budget: {trials: 4, epochs: 3}
"""


def wdsearch(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return command(*words, folder=folder, beside=words[0] == "run")
