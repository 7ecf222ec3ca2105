"""Old names, which still work and warn about the new place."""

import importlib
import warnings
from collections.abc import Callable

# For each old package, the package that has each name now.
_PLACES = {
    'mmssm.engine': {
        'ChangeMetric': 'mmssm.evaluation',
        'ConfigError': 'mmssm.utils',
        'add_common_options': 'mmssm.apis.cli',
        'add_unsafe_load': 'mmssm.apis.cli',
        'check_data': 'mmssm.apis.preflight',
        'check_weights': 'mmssm.apis.preflight',
        'evaluate': 'mmssm.apis',
        'keep_freed_memory': 'mmssm.ops.memory',
        'run_tool': 'mmssm.apis.cli',
        'train': 'mmssm.apis',
    },
    'mmssm.inference': {
        'InferenceSummary': 'mmssm.apis',
        'find_model': 'mmssm.apis',
        'infer': 'mmssm.apis',
        'register_model_index': 'mmssm.apis',
    },
}


def moved_names(package: str) -> Callable[[str], object]:
    """Make a package's ``__getattr__`` for names that have moved.

    Args:
        package (str): The old package.

    Returns:
        Callable: Looks a name up in its new place, with a FutureWarning.
    """
    places = _PLACES[package]

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
