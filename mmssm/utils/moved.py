"""Old names that still work and name the new place."""

import importlib
import warnings
from collections.abc import Callable, Mapping


def moved_names(
    package: str, places: Mapping[str, str]
) -> Callable[[str], object]:
    """A module's ``__getattr__`` for names that moved to other modules.

    Args:
        package (str): The module that had them.
        places (Mapping[str, str]): The module that has each name now.

    Returns:
        Callable: Looks a name up in its new module, with a FutureWarning.
    """

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f'module {package} has no attribute {name}')
        warnings.warn(
            f'{package}.{name} has moved: use {places[name]}.{name}',
            FutureWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(places[name]), name)

    return find
