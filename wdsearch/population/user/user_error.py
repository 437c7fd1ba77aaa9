"""Errors of a user's own code, told by their text and the user's line."""

import sys
import sysconfig
import traceback
from pathlib import Path

_LIBRARIES = (
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "pytorch_lightning",
    "torch",
    "torchmetrics",
    "wdsearch",
)
_FOLDERS = tuple(f"/{name}/" for name in _LIBRARIES)


def users_line(error: BaseException) -> str:
    """` (file.py:12, in training_step)` of the last frame in a user's code that an error came through; `` if there is none.

    >>> namespace = {}
    >>> exec(compile("def step():\\n    raise ValueError", "/home/me/mine.py", "exec"), namespace)
    >>> try:
    ...     namespace["step"]()
    ... except ValueError as error:
    ...     users_line(error)
    ' (mine.py:2, in step)'
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""


def described(error: BaseException) -> str:
    """Class, text and user's line of an error.

    >>> described(ValueError("no such column"))
    'ValueError: no such column'
    """
    return f"{type(error).__name__}: {error}{users_line(error)}"


def _is_users(file: str) -> bool:
    if file.startswith("<") or Path(file).is_relative_to(Path(__file__).parents[2]):
        return False
    installed = "/site-packages/" in file or "/dist-packages/" in file
    if installed:
        return not any(folder in file for folder in _FOLDERS)
    return not file.startswith((sysconfig.get_path("stdlib"), sys.base_prefix + "/lib/python"))
