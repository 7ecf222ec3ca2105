"""Importing modules that a config names, and acting on later imports."""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import ConfigError, one_line, warn


def import_custom(
    imports: str | Sequence[str],
    folders: Sequence[str | Path],
    allow_failed: bool = False,
    source: str = 'custom_imports',
) -> None:
    """Import the modules of a config's ``custom_imports``.

    Args:
        imports (str | Sequence[str]): Names of modules.
        folders (Sequence[str | Path]): Where to look for modules that are
            not on Python's path. These folders are added to the end of the
            path when a module is missing.
        allow_failed (bool): Print a warning for a module that cannot be
            imported, and go on. Defaults to False.
        source (str): Where the names are from, for messages.

    Raises:
        ConfigError: A module is missing, or one that it imports.
    """
    names = [imports] if isinstance(imports, str) else imports
    if not isinstance(names, Sequence) or not all(
        isinstance(name, str) for name in names
    ):
        raise ConfigError(
            f'{source}: imports must be a list of module names, got '
            f'{imports!r}; write imports=["my_module"]'
        )
    for name in names:
        if not all(part.isidentifier() for part in name.split('.')) or (
            name.endswith('.py')
        ):
            raise ConfigError(
                f'{source}: {name!r} is not the name of a module; write '
                "'my_module' for the file my_module.py, 'folder.my_module' "
                'for one in a folder'
            )
        try:
            _import_near(name, folders)
        except ImportError as error:
            problem = f'{source}: {_why_not(name, error, folders)}'
            if not allow_failed:
                raise ConfigError(problem) from error
            warn(f'{problem}; it is left out')


def when_imported(module: str, function: Callable[[ModuleType], None]) -> None:
    """Call a function with a module: now, or once something imports it.

    Args:
        module (str): The full name of the module.
        function (Callable): Called once.
    """
    if module in sys.modules:
        function(sys.modules[module])
    else:
        sys.meta_path.insert(0, _AfterImport(module, function))


def _import_near(name: str, folders: Sequence[str | Path]) -> None:
    try:
        importlib.import_module(name)
        return
    except ModuleNotFoundError as error:
        # Only where the module itself is missing, not one that it needs.
        if error.name is None or not f'{name}.'.startswith(f'{error.name}.'):
            raise
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)
    importlib.invalidate_caches()
    importlib.import_module(name)


def _why_not(
    name: str, error: ImportError, folders: Sequence[str | Path]
) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return (
            f"no module {name!r} on Python's path, nor in "
            f'{" or ".join(map(str, folders))}; check the name, or set '
            'PYTHONPATH to the folder that holds it'
        )
    return f'cannot import {name!r}: {type(error).__name__}: {one_line(error)}'


class _AfterImport(MetaPathFinder):
    """Finds nothing itself; runs a function after a module is executed."""

    def __init__(
        self, module: str, function: Callable[[ModuleType], None]
    ) -> None:
        self.module = module
        self.function = function

    def find_spec(
        self, fullname: str, path: Any, target: Any = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader, execute = spec.loader, spec.loader.exec_module

        def execute_and_call(module: ModuleType) -> None:
            loader.exec_module = execute  # type: ignore
            execute(module)
            self.function(module)

        loader.exec_module = execute_and_call  # type: ignore
        return spec
