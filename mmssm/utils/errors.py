"""Errors that the user can correct, and their messages."""

import difflib
import inspect
import re
import sys

import mmengine.registry
from mmengine.dist import is_main_process
from mmengine.registry import Registry

_IN_WORKER = re.compile(r'Caught \w+ in DataLoader worker process \d+\.\n')
_BAD_ARGUMENT = re.compile(
    r'(?P<name>\w+)\.__init__\(\) got an unexpected keyword argument '
    r"'(?P<argument>\w+)'"
)
_UNKNOWN_TYPE = re.compile(r'is not in the [\w: ]+ registry')


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

    True for :class:`UserError`, and for what mmengine's registry finds wrong
    with a config: an unknown ``type``, or an argument that a registered class
    does not take.
    """
    if isinstance(error, UserError):
        return True
    text = str(error)
    if isinstance(error, KeyError):
        return bool(_UNKNOWN_TYPE.search(text))
    return isinstance(error, TypeError) and _refusing_class(text) is not None


def one_line(error: BaseException) -> str:
    """The error's message without line breaks.

    If a data loading process fails, PyTorch's message is the whole traceback;
    only the message of the original error is kept. Errors of mmengine's
    registry get a hint of what to do.
    """
    # str(KeyError) puts its message in quotes.
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    if _IN_WORKER.match(text):
        name = type(error).__name__
        text = re.split(rf'^[\w.]*{name}: ', text, flags=re.M)[-1]
    return ' '.join(f'{text}{_hint(text)}'.split())


def _hint(text: str) -> str:
    if _UNKNOWN_TYPE.search(text):
        return (
            '; is it spelled right, and is default_scope the library that '
            'the config is written for?'
        )
    refusing = _refusing_class(text)
    if refusing is None:
        return ''
    known = [n for n in inspect.signature(refusing).parameters if n != 'self']
    given = _BAD_ARGUMENT.search(text)['argument']
    close = difflib.get_close_matches(given, known, 1)
    meant = f"; did you mean '{close[0]}'?" if close else ''
    return f'; it takes {", ".join(known)}{meant}'


def _refusing_class(text: str) -> type | None:
    """The class that did not take an argument.

    None unless a config can name it: it must be registered, or be a base of a
    registered class.
    """
    found = _BAD_ARGUMENT.search(text)
    if found is None:
        return None
    registries = [
        registry
        for registry in vars(mmengine.registry).values()
        if isinstance(registry, Registry)
    ]
    registries += [c for r in registries for c in r.children.values()]
    for registry in registries:
        for registered in filter(
            inspect.isclass, registry.module_dict.values()
        ):
            for base in registered.__mro__:
                if base.__qualname__ == found['name']:
                    return base
    return None


def warn(message: str) -> None:
    """Print a warning line, in the first process only."""
    if is_main_process():
        print(f'warning: {message}', file=sys.stderr, flush=True)
