"""Objects by import path: a module beside the study file comes first, as one beside a script does."""

import importlib
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from wdsearch.messages import nearest, shown_value

_folders: set[str] = set()
"""Folders of studies whose modules were loaded."""


def import_path(path: str, folder: Path | None = None) -> Any:
    """The object at `package.module.Name`, looked for in the study file's folder and in what is installed.

    >>> import_path("pathlib.PurePath").__name__
    'PurePath'
    """
    module, _, name = path.rpartition(".")
    return getattr(_module(module, folder), name)


def why_not(path: str, folder: Path | None = None) -> str:
    """Reason why there is no class at an import path, and what to do.

    >>> why_not("pathlib.PurePat").partition("?")[0]
    'the module pathlib has no PurePat; did you mean PurePath'
    """
    module, _, name = path.rpartition(".")
    try:
        loaded = _module(module, folder)
        if not hasattr(loaded, name):
            own = [key for key, value in vars(loaded).items() if callable(value) and not key.startswith("_")]
            return f"the module {module} has no {name}{nearest(name, own)}"
        return f"it is no class but {shown_value(getattr(loaded, name))}"
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            beside = f"beside the study file ({folder}) and " if folder else ""
            return f"there is no module {error.name}; it is looked for {beside}in the installed packages"
        return f"the module {module} imports {error.name}, which is not installed{_line(error)}"
    except (Exception, SystemExit) as error:  # whatever a user's module raises when it is imported
        return f"its module cannot be imported: {type(error).__name__}: {error}{_line(error)}"


def _module(name: str, folder: Path | None) -> ModuleType:
    if folder is not None:
        _look_beside(folder, name.partition(".")[0])
    return importlib.import_module(name)


def _look_beside(folder: Path, name: str) -> None:
    """Let Python find a module of the folder; one of the same name from another study's folder is forgotten.

    Raises ImportError if the name is that of a module which the program itself has loaded.
    """
    own = next((path for path in (folder / f"{name}.py", folder / name / "__init__.py") if path.is_file()), None)
    if own is None and not (folder / name).is_dir():
        return
    if sys.path[:1] != [str(folder)]:
        with suppress(ValueError):
            sys.path.remove(str(folder))
        sys.path.insert(0, str(folder))
        _folders.add(str(folder))
        importlib.invalidate_caches()
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if own is None or loaded is None or Path(loaded) == own:
        return
    if not any(Path(loaded).is_relative_to(known) for known in _folders):
        raise ImportError(f"{own} has the name of a module that is in use, {loaded}; give it another name")
    for other in [key for key in sys.modules if f"{key}.".startswith(f"{name}.")]:
        del sys.modules[other]


def _line(error: BaseException) -> str:
    """The last line of a user's module that an error came through; that of a SyntaxError is in its own text."""
    ours = (str(Path(__file__)), importlib.__file__, "<frozen ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
