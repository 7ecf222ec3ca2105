"""Errors that the user can mend, and how the tools print them."""

import inspect
import linecache
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch.distributed as dist
from mmengine.dist import is_main_process

from mmssm.checkpoint import CheckpointError

_PACKAGE = Path(__file__).resolve().parents[1]
_IN_WORKER = re.compile(r'Caught \w+ in DataLoader worker process \d+\.\n')
_PLACE = re.compile(
    r'^  File "(?P<file>.+)", line (?P<line>\d+), in .*$', re.M
)
_LAST_RELEASE = 0.3  # seconds; it takes a moment of the interpreter's


class ConfigError(ValueError):
    """A config or an option cannot be used as it stands.

    The message is one line: what is wrong, what was expected, what to do.
    """


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool, turning an error the user can mend into one line.

    Such an error prints as ``<tool>: error: <message>`` and exits with
    status 2, argparse's own status. Any other exception is a defect of the
    program and keeps its traceback. What several processes find is printed
    once. The process group is ended unless the program failed: other
    processes may not get that far.

    Args:
        main (Callable): The tool's body, without arguments.
    """
    try:
        main()
        _end_group()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not is_users_error(error):
            raise
        tool, text = os.path.basename(sys.argv[0]), one_line(error)
        if _is_first_to_say(text):
            print(f'{tool}: error: {text}', file=sys.stderr, flush=True)
        _end_group()
        sys.exit(2)


def _is_first_to_say(text: str) -> bool:
    """Whether no other process has said the same."""
    if not dist.is_initialized():
        # A config is the same for all; data, which may differ, come later.
        return os.environ.get('LOCAL_RANK', '0') == '0'
    try:
        store = dist.distributed_c10d._get_default_store()
        return store.add(f'mmssm error: {text}', 1) == 1
    except RuntimeError:  # the process that keeps it has gone
        return True


def _end_group() -> None:
    """End the process group, before the interpreter ends under it.

    A thread of gloo that has yet to release its last tensor needs the
    interpreter; if that is ending already, the process aborts, and torchrun
    takes a finished training for a failed one. DistributedDataParallel keeps
    these threads alive beyond the group (PyTorch 2.11), so it is given time.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(_LAST_RELEASE)


def warn(message: str) -> None:
    """Print a warning line; the first process speaks for all."""
    if is_main_process():
        print(f'warning: {message}', file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """The error's message without line breaks."""
    # str(KeyError) puts its message in quotes.
    text = error.args[0] if isinstance(error, KeyError) else str(error)
    if (told := _told_by_worker(error)) is not None:
        text = told.text
    hint = _known_arguments(error) or _other_scope(text)
    return ' '.join(f'{text}{hint}'.split())


def _other_scope(text: object) -> str:
    """What may be wrong if mmengine's registry does not know a name."""
    if ' registry' not in str(text) or ' is not in the ' not in str(text):
        return ''
    return (
        '; is it spelt right, and is default_scope the library that the '
        'config is written for?'
    )


def _known_arguments(error: BaseException) -> str:
    """What a class takes, after a config gave it an argument it does not."""
    if 'unexpected keyword argument' not in str(error):
        return ''
    # mmengine's registry raised it while it called the class ``obj_cls``.
    built = _innermost(error.__traceback__).tb_frame.f_locals.get('obj_cls')
    if built is None:
        return ''
    names = [n for n in inspect.signature(built).parameters if n != 'self']
    return f'; it takes {", ".join(names)}'


def is_users_error(error: BaseException) -> bool:
    """Whether the config, an option or a file caused the error.

    True for mmssm's own error types, for a ``raise`` of a ValueError,
    TypeError or RuntimeError written in mmssm (that is how it rejects bad
    arguments and files), and for what mmengine's registry finds wrong with a
    config: an unknown ``type`` and an argument that the class does not have.
    """
    if isinstance(error, (ConfigError, CheckpointError)):
        return True
    if not isinstance(error, (ValueError, TypeError, KeyError, RuntimeError)):
        return False
    if (told := _told_by_worker(error)) is not None:
        return told.is_raise_of_mmssm
    raised = _innermost(error.__traceback__)
    file = Path(raised.tb_frame.f_code.co_filename)
    if file.name == 'build_functions.py' and 'mmengine' in file.parts:
        return isinstance(error, (TypeError, KeyError))
    return _is_raise_of_mmssm(file, raised.tb_lineno)


def _is_raise_of_mmssm(file: Path, line: int) -> bool:
    written_here = linecache.getline(str(file), line).lstrip()
    return _PACKAGE in file.parents and written_here.startswith('raise ')


class _Told(NamedTuple):
    """What a process that loads data told of its error."""

    text: str
    is_raise_of_mmssm: bool


def _told_by_worker(error: BaseException) -> _Told | None:
    """An error of a DataLoader's process, which PyTorch raises anew here.

    Its message is the traceback of that process.
    """
    if not _IN_WORKER.match(str(error)):
        return None
    *_, place = _PLACE.finditer(str(error))
    rest = str(error)[place.end() :]
    # Its source and the marks below that are indented.
    kind = re.search(r'^[\w.]+: ', rest, re.MULTILINE)
    text = rest[kind.end() :] if kind else rest
    file, line = Path(place['file']), int(place['line'])
    return _Told(text, _is_raise_of_mmssm(file, line))


def _innermost(traceback: TracebackType) -> TracebackType:
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback
