"""Write files and folders safely."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import ConfigError

TEMP_SUFFIX = '.tmp'


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name only when it is complete.

    The bytes are written to a hidden file beside it (``.<name>.<pid>.tmp``),
    flushed to disk (``fsync``) and renamed in one step. A crash, a full disk
    or a kill leaves the previous file unchanged.

    Args:
        path (str or Path): The file to write; its folder is created.

    Yields:
        BinaryIO: The open temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f'.{path.name}.{os.getpid()}{TEMP_SUFFIX}')
    try:
        with open(temp, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def file_lock(path: str | Path) -> Iterator[None]:
    """Hold a lock, so that other processes wait that lock the same path.

    The lock (``.<name>.lock`` beside it) is released if the process ends.

    Args:
        path (str or Path): The path to protect; its folder must exist.
    """
    path = Path(path)
    with open(path.with_name(f'.{path.name}.lock'), 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # some network file systems do not support locks
            pass
        yield


def free_name(name: str, taken: set[str]) -> str:
    """The name, with a number added if another image has it.

    Args:
        name (str): A path without its suffix.
        taken (set[str]): The names of the others, in lower case.
    """
    free, number = name, 1
    while free.lower() in taken:
        number += 1
        free = f'{name}-{number}'
    return free


def make_folder(folder: Path, option: str) -> None:
    """Create a folder for results.

    Args:
        folder (Path): The folder; it may exist.
        option (str): The option that sets it, for the message.

    Raises:
        ConfigError: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f'cannot write to {folder} ({error.strerror}); choose another '
            f'{option}'
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure, if the system supports it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # folders cannot be opened on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems do not support it
        pass
    finally:
        os.close(descriptor)
