"""Let the config that a run writes be read by other tools."""

import sys
from collections.abc import Callable

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

_PACKAGE = 'mmssm'
# The keys whose values name what mmengine builds.
_NAMING = ('type', 'constructor')
_ROOT_SCOPE = 'mmengine.'


def make_portable(cfg: Config) -> None:
    """Write the modules of mmssm's types into a config.

    mmssm's tools import all of mmssm, so that they find its types by their
    bare names. Other tools import what ``custom_imports`` lists, and search
    the library's own registries. Here each bare name gets its module
    (``mmssm.engine.MESAHook``), which is found from everywhere, and
    ``custom_imports`` gets ``mmssm``, whose import also registers its
    checkpoint loaders.

    Args:
        cfg (Config): The config to run; changed in place.
    """
    own = _own_types(cfg.get('default_scope'))
    if not any([_write_modules(cfg[key], own) for key in cfg]):
        return
    given = cfg.get('custom_imports') or dict(allow_failed_imports=False)
    names = given.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if _PACKAGE not in names:
        cfg.custom_imports = dict(given, imports=[_PACKAGE, *names])


def _own_types(scope: str | None) -> dict[str, str]:
    """The names under which mmssm's types are registered, with modules.

    Without those that the library of ``scope`` gives to a type of its own.
    """
    own = {}
    for registry in vars(mmengine.registry).values():
        if not isinstance(registry, Registry):
            continue
        library = registry.children.get(scope)
        for name, kind in registry.module_dict.items():
            module = getattr(kind, '__module__', None) or ''
            if module.split('.')[0] != _PACKAGE:
                continue
            if library is None or name not in library.module_dict:
                own[name] = _public_path(kind)
    return own


def _public_path(kind: Callable) -> str:
    """The shortest path under which a type can be imported."""
    parts = kind.__module__.split('.')
    modules = ['.'.join(parts[: end + 1]) for end in range(len(parts))]
    for module in modules:
        if vars(sys.modules[module]).get(kind.__name__) is kind:
            return f'{module}.{kind.__name__}'
    return f'{modules[-1]}.{kind.__name__}'


def _write_modules(node: object, own: dict[str, str]) -> bool:
    """Write them into a part of a config; whether it has any of these types.

    A type may have its module already.
    """
    if isinstance(node, (list, tuple)):
        return any([_write_modules(item, own) for item in node])
    if not isinstance(node, dict):
        return False
    found = any([_write_modules(value, own) for value in node.values()])
    for key in _NAMING:
        name = node.get(key)
        if isinstance(name, str):
            node[key] = own.get(name.removeprefix(_ROOT_SCOPE), name)
            found |= node[key].startswith(f'{_PACKAGE}.')
        elif getattr(name, '__module__', '').split('.')[0] == _PACKAGE:
            found = True
    return found
