"""Errors that the user can correct, and their messages."""

import difflib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable

import mmengine.registry
from mmengine.dist import is_main_process
from mmengine.registry import Registry

_IN_WORKER = re.compile(r'Caught \w+ in DataLoader worker process \d+\.\n')
_BAD_ARGUMENT = re.compile(
    r'(?P<name>\w+)\.__init__\(\) (got an unexpected keyword argument '
    r"'(?P<argument>\w+)'|missing \d+ required )"
)
_UNKNOWN_TYPE = re.compile(
    r'^(?P<type>\S+) is not in the (?P<scope>\w+)::(?P<name>[\w ]+) registry'
)
_NO_TYPE = re.compile(
    r'^`cfg` or `default_args` must contain the key "type", but got (.*)',
    re.DOTALL,
)
_SHOWN = 200  # characters of a config's part in a message
# What a constructor of these refuses is in the config.
_LIBRARIES = tuple(
    f'{name}.'
    for name in (
        *('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'),
        *('torch.nn', 'torch.optim', 'torch.utils.data'),
    )
)
# All that these two raise is about the config.
_BUILDING = ('mmengine.runner.runner', 'mmengine.registry.build_functions')
# They build the other classes and loaders: no use to name what they are in.
_BUILDERS = ('mmengine.registry.', 'mmengine.runner.', 'torch.utils.data.')


class UserError(ValueError):
    """An input, option or file cannot be used; the user can correct it.

    mmssm raises it, or a subclass, for every error that is not a defect of
    the program. The message says what was wrong, what was expected and what
    to do. The tools print it in one line, without a traceback.
    """


class ConfigError(UserError):
    """A config or an option cannot be used."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint is missing, damaged, unsafe or of another model."""


def is_user_error(error: BaseException) -> bool:
    """Whether the config, an option or a file caused the error.

    True for :class:`UserError`, for what mmengine's registry finds wrong with
    a config (an unknown or missing ``type``, an argument that a registered
    class does not take or lacks), for what a library's own check refuses
    while something is built from a config, and for a package that must be
    installed.
    """
    if isinstance(error, UserError):
        return True
    text = str(error.args[0]) if error.args else ''
    if isinstance(error, KeyError) and (
        _UNKNOWN_TYPE.match(text) or _NO_TYPE.match(text)
    ):
        return True
    if isinstance(error, TypeError) and _refusing_class(text) is not None:
        return True
    if isinstance(error, ImportError) and 'install' in text:
        return True
    return _refused_by_library(error)


def one_line(error: BaseException) -> str:
    """The error's message without line breaks.

    If a data loading process fails, PyTorch's message is the whole traceback;
    only the message of the original error is kept. Errors of mmengine's
    registry get a hint of what to do, those of a library's class its name.
    """
    # str(KeyError) puts its message in quotes.
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    if _IN_WORKER.match(text):
        name = type(error).__name__
        text = re.split(rf'^[\w.]*{name}: ', text, flags=re.M)[-1]
    elif _NO_TYPE.match(text):
        part = ' '.join(_NO_TYPE.match(text)[1].split('\n')[0].split())
        more = '...' if len(part) > _SHOWN else ''
        text = f'this part of the config has no type: {part[:_SHOWN]}{more}'
    elif _UNKNOWN_TYPE.match(text):
        text = _UNKNOWN_TYPE.match(text)[0]
    elif not isinstance(error, UserError) and _refused_by_library(error):
        text = text or f'this condition is not met: {_last_line(error)}'
        if not _last_module(error).startswith(_BUILDERS):
            text = f'{_built(error)}: {text}'
    return ' '.join(f'{text}{_hint(text)}'.split())


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a message about a name: a known one like it.

    Args:
        given (str): The unknown name.
        known (Iterable[str]): The names that there are.

    Returns:
        str: ``"; did you mean 'name'?"``, or '' if none is like it.
    """
    known = list(known)
    close = [name for name in known if name.lower() == given.lower()]
    close = close or difflib.get_close_matches(given, known, 1)
    return f"; did you mean '{close[0]}'?" if close else ''


def _hint(text: str) -> str:
    unknown = _UNKNOWN_TYPE.match(text)
    if unknown:
        known = {
            name
            for registry in _registries()
            if registry.name == unknown['name']
            and registry.scope in ('mmengine', unknown['scope'])
            for name in registry.module_dict
        }
        meant = did_you_mean(unknown['type'].rpartition('.')[2], known)
        return meant or (
            '; is it spelled right, and is default_scope the library that '
            'the config is written for?'
        )
    refusing = _refusing_class(text)
    if refusing is None:
        return ''
    known = [n for n in inspect.signature(refusing).parameters if n != 'self']
    given = _BAD_ARGUMENT.search(text)['argument']
    meant = did_you_mean(given, known) if given else ''
    return f'; it takes {", ".join(known)}{meant}'


def _refusing_class(text: str) -> type | None:
    """The class that did not take an argument, or lacks one.

    None unless a config can name it: it must be registered, or be a base of a
    registered class.
    """
    found = _BAD_ARGUMENT.search(text)
    if found is None:
        return None
    for registry in _registries():
        for registered in filter(
            inspect.isclass, registry.module_dict.values()
        ):
            for base in registered.__mro__:
                if base.__qualname__ == found['name']:
                    return base
    return None


def _registries() -> list[Registry]:
    """Mmengine's registries and those of the libraries."""
    roots = [
        registry
        for registry in vars(mmengine.registry).values()
        if isinstance(registry, Registry)
    ]
    return roots + [c for root in roots for c in root.children.values()]


def _refused_by_library(error: BaseException) -> bool:
    """Whether a check of a library fails while a config is built.

    A check is a ``raise`` or ``assert`` that stands in the library; an error
    that Python finds there may be a defect.
    """
    module = _last_module(error)
    if not module.startswith(_LIBRARIES):
        return False
    checked = isinstance(error, AssertionError) or (
        _last_line(error).startswith('raise ')
    )
    return checked and (module in _BUILDING or _built(error) is not None)


def _last_module(error: BaseException) -> str:
    """The module that raised the error; '' for one that was not raised."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get('__name__', '') if frames else ''


def _built(error: BaseException) -> str | None:
    """The name of what mmengine's registry was building, innermost."""
    name = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get('__name__') == (
            'mmengine.registry.build_functions'
        ):
            local = frame.f_locals
            kind = local.get('obj_cls') or local.get('scheduler_cls')
            name = getattr(kind, '__name__', name)
    return name


def _last_line(error: BaseException) -> str:
    return traceback.extract_tb(error.__traceback__)[-1].line or ''


def warn(message: str) -> None:
    """Print a warning line, in the first process only."""
    if is_main_process():
        print(f'warning: {message}', file=sys.stderr, flush=True)
