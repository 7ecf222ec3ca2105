"""Loading checkpoint files without running code that they carry."""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmssm.utils import CheckpointError

# A HistoryBuffer pickles its table of statistics as references to its own
# methods, which protocol 2 writes as calls of ``getattr``.
_STATISTICS = ('min', 'max', 'mean', 'current')

_NUMERIC_DTYPES = tuple(type(np.dtype(code)) for code in '?bBhHiIlLqQefdgFD')

_unsafe_allowed = False


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """There is no such file; code for mmengine's own loader expects both."""


def allow_unsafe_loading(allowed: bool = True) -> None:
    """Let :func:`load_file` unpickle anything, for the rest of the process.

    Unpickling a file can run any code its author wished, so this is for files
    whose author you trust. The tools' ``--unsafe-load`` calls it.

    Args:
        allowed (bool): Whether to allow it. Defaults to True.
    """
    global _unsafe_allowed
    _unsafe_allowed = allowed


def load_file(
    path: str | Path,
    map_location: str | torch.device | Callable = 'cpu',
    weights_only: bool | None = None,
) -> Any:
    """Load a checkpoint file, running none of the code that it may carry.

    Tensors, plain Python values and the few types that mmengine's own and
    the originals' training checkpoints hold are accepted. A file that asks
    for more is refused, unless the user wants otherwise:
    :func:`allow_unsafe_loading`, ``weights_only=False``, or PyTorch's own
    default, which its variable ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``
    changes.

    Args:
        path (str or Path): The file, as ``torch.save`` wrote it.
        map_location: As in :func:`torch.load`. Defaults to ``'cpu'``.
        weights_only (bool, optional): As in :func:`torch.load`. Defaults to
            None: safely if that is enough, else as PyTorch does by default.

    Returns:
        Any: What was saved, usually a dict.

    Raises:
        CheckpointError: The file is missing, empty, damaged or not a
            checkpoint, or it asks for a global that is not allowed.
    """
    path = check_file(path)
    if _unsafe_allowed:
        weights_only = False
    try:
        return _load(path, map_location, weights_only)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f'checkpoint {path} needs the Python package {error.name}; '
            'install it'
        ) from error
    except PermissionError as error:
        raise CheckpointError(
            f'checkpoint {path} may not be read; change its permissions'
        ) from error
    except Exception as error:
        if _is_of_the_machine(error):
            raise
        raise CheckpointError(_reason(path, error)) from error


def _load(path: Path, map_location: Any, weights_only: bool | None) -> Any:
    if weights_only is False:
        return torch.load(path, map_location, weights_only=False)
    # Restoring a HistoryBuffer adds the file's statistics to the class's. The
    # class fills its table when its first instance is made, so make one.
    HistoryBuffer()
    statistics = dict(HistoryBuffer._statistics_methods)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(path, map_location, weights_only=True)
    except pickle.UnpicklingError as refused:
        if weights_only:
            raise
        try:
            # As mmengine does: PyTorch's default and its variables decide.
            return torch.load(path, map_location)
        except pickle.UnpicklingError:
            raise refused from None
    finally:
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(statistics)


def _safe_globals() -> list[type | tuple[Callable, str]]:
    """What training checkpoints ask for, and nothing else.

    Those are mmengine 0.10's and, for their config, the originals'.
    """
    # numpy 2 renamed the module; files name the one they were written with.
    multiarray = (np._core if hasattr(np, '_core') else np.core).multiarray
    allowed: list = [HistoryBuffer, np.ndarray, np.dtype, *_NUMERIC_DTYPES]
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed.append((multiarray._reconstruct, f'{module}._reconstruct'))
        allowed.append((multiarray.scalar, f'{module}.scalar'))
    allowed.append((_statistics_method, 'builtins.getattr'))
    allowed.append((_ConfigNode, 'yacs.config.CfgNode'))
    return allowed


class _ConfigNode:
    """Stand-in for the config that Swin's descendants save: a dict.

    The real class is one too, with methods that nobody needs here; without
    it, yacs need not be installed. torch fills exact dicts only.
    """

    def __new__(cls) -> OrderedDict:
        return OrderedDict()


def _statistics_method(owner: Any, name: Any) -> Callable:
    """Stand-in for ``getattr`` that reaches HistoryBuffer's statistics only.

    The real ``getattr`` would lead from any allowed class to all of Python.
    """
    if owner is HistoryBuffer and name in _STATISTICS:
        return vars(HistoryBuffer)[name]
    raise pickle.UnpicklingError(
        f'Unsupported global: GLOBAL getattr({owner!r}, {name!r})'
    )


def check_file(path: str | Path) -> Path:
    """Raise a CheckpointError unless ``path`` is a file with content.

    Args:
        path (str or Path): The file, ``~`` allowed.

    Returns:
        Path: The same file, ``~`` replaced.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise CheckpointError(
            f'{path} is a folder, not a checkpoint; name a file in it'
        )
    if not path.exists():
        raise MissingCheckpointError(
            f'checkpoint {path} does not exist; check the path'
        )
    if path.stat().st_size == 0:
        raise CheckpointError(
            f'checkpoint {path} is empty (0 bytes): the copy or download did '
            'not finish; fetch it again'
        )
    return path


def locate_checkpoint(checkpoint: str | Path) -> str:
    """What a user names: an address as it is, a file as :func:`check_file`.

    Args:
        checkpoint (str or Path): A file, also as ``file://...``, or the
            address of a remote one.

    Returns:
        str: The address, or the path of a file that is there.

    Raises:
        CheckpointError: There is no such file, or nothing in it.
    """
    file = local_file(checkpoint)
    return str(checkpoint) if file is None else str(check_file(file))


def local_file(checkpoint: str | Path) -> Path | None:
    """The file that a checkpoint's name means; None for an address.

    Args:
        checkpoint (str or Path): As that of :func:`locate_checkpoint`; the
            file need not be there.
    """
    name = str(checkpoint).removeprefix('file://')
    return None if '://' in name else Path(name).expanduser()


def _is_of_the_machine(error: Exception) -> bool:
    """Whether it is not the file that is at fault; torch says it well."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return 'Attempting to deserialize object on' in str(error)


def _reason(path: Path, error: Exception) -> str:
    """One line for a file that torch could not or would not load."""
    # Bytes that are no pickle make the unpickler fail in any way there is.
    if not isinstance(error, pickle.UnpicklingError):
        return _damage(path)
    wanted = re.search(
        r'GLOBAL (getattr\(.*?\)|\S+)|unrecognized function (<[^>]*>|\S+)|'
        r'but got (<class [^>]*>)',
        str(error),
    )
    if wanted is None:
        return _damage(path)
    name = next(group for group in wanted.groups() if group)
    return (
        f'checkpoint {path} was refused, nothing in it was run: it asks '
        f"for {name}, which is neither weights nor part of mmengine's "
        "own state, and loading it could run its author's code; if you "
        'trust the author, add --unsafe-load (in Python: '
        'mmssm.checkpoint.allow_unsafe_loading())'
    )


def _damage(path: Path) -> str:
    """One line for a file that is no checkpoint, or only a part of one."""
    with open(path, 'rb') as file:
        head = file.read(64)
    size = f'{path.stat().st_size:,} bytes'
    if head.startswith(b'PK\x03\x04') or head[:1] == b'\x80':
        return (
            f'checkpoint {path} is damaged or cut short ({size}); copy or '
            'download it again'
        )
    if head.lstrip()[:1] == b'<':
        return (
            f'{path} is a web page, not a checkpoint ({size}): the '
            'download was answered by a page; fetch the file itself'
        )
    if head.startswith(b'version https://git-lfs'):
        return (
            f'{path} is a Git LFS pointer, not the checkpoint itself '
            f'({size}); run "git lfs pull"'
        )
    return (
        f'{path} is not a checkpoint that torch.save wrote ({size}); '
        'check the path'
    )
