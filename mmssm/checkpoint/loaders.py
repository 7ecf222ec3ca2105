"""The loaders behind every checkpoint that mmengine opens.

mmengine looks a loader up by the path's prefix. Registering ours makes
``init_cfg=dict(type='Pretrained', ...)``, ``load_from``, resuming and testing
load files safely and understand the original authors' files.
"""

import hashlib
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch
from mmengine.dist import barrier, is_distributed
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    _get_mmengine_home,
    get_external_models,
    get_torchvision_models,
)

from mmssm.utils import CheckpointError

from ..backbones.part_loading import FILE, file_note
from .own_names import update_names
from .safe_load import load_file
from .upstream import convert_upstream

# Names end in the first digits of the file's sha256, OpenMMLab's habit. A
# number without a letter is as likely a date.
_HASH_IN_NAME = re.compile(r'-(?=[0-9]*[a-f])([0-9a-f]{8,64})\.[a-z]+$')


def load_from_local(
    filename: str,
    map_location: Any = None,
    weights_only: bool | None = None,
) -> Any:
    """Load a local file, converting an original author's file in memory.

    Any other file gives what mmengine's own loader gives, with weights of an
    earlier version of mmssm by today's names; see :func:`load_file` for
    ``weights_only``.
    """
    if map_location is None:
        map_location = None if torch.cuda.is_available() else 'cpu'
    checkpoint = load_file(filename, map_location, weights_only)
    converted = convert_upstream(checkpoint, source=Path(filename).name)
    return _prepare(checkpoint if converted is None else converted, filename)


def _prepare(checkpoint: Any, filename: str) -> Any:
    """Give weights today's names and a note for the model's backbone.

    The note has the file's name and heads. PyTorch keeps the metadata of
    modules, by their names, in an attribute of state dicts.
    """
    if not isinstance(checkpoint, dict):
        return checkpoint
    given = checkpoint.get('state_dict', checkpoint)
    if not isinstance(given, dict):
        return checkpoint
    weights = OrderedDict(update_names(given))
    metadata = dict(getattr(given, '_metadata', {}))
    note = file_note(filename, weights)
    metadata['backbone'] = {**metadata.get('backbone', {}), FILE: note}
    weights._metadata = metadata  # type: ignore[attr-defined]
    if 'state_dict' not in checkpoint:
        return weights
    averages = checkpoint.get('ema_state_dict')
    if isinstance(averages, dict):
        checkpoint = {**checkpoint, 'ema_state_dict': update_names(averages)}
    return {**checkpoint, 'state_dict': weights}


def load_from_http(
    filename: str,
    map_location: Any = None,
    weights_only: bool | None = None,
) -> Any:
    """Download a file once into torch's cache, then load it as a local one.

    The cache is ``torch.hub.get_dir()/checkpoints``. With several processes
    the first one on each machine downloads and the others wait.
    """
    first = not is_distributed() or os.environ.get('LOCAL_RANK', '0') == '0'
    if first:
        path = download(filename)
    barrier()
    if not first:
        path = download(filename)
    return load_from_local(str(path), map_location, weights_only)


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Load ``torchvision://<name>`` through :func:`load_from_http`."""
    return _load_named(filename, get_torchvision_models(), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Load ``open-mmlab://<name>`` through :func:`load_from_http`."""
    return _load_named(filename, get_external_models(), map_location)


def download(url: str, folder: Path | None = None) -> Path:
    """Fetch a checkpoint unless it is already in the cache.

    Args:
        url (str): An http(s) address.
        folder (Path, optional): Where to keep it. Defaults to torch's cache.

    Returns:
        Path: The file, whole and with the sha256 its name promises, if any.

    Raises:
        CheckpointError: The download failed, or the file is another one than
            its name says.
    """
    folder = folder or Path(torch.hub.get_dir()) / 'checkpoints'
    path = folder / os.path.basename(unquote(urlparse(url).path))
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=True)
        except OSError as error:  # URLError, HTTPError and timeouts are some
            raise CheckpointError(
                f'cannot download {url} ({error}); fetch it by other means '
                f'and put it at {path}'
            ) from error
    _check_hash(path)
    return path


def _load_named(filename: str, urls: dict, map_location: Any) -> Any:
    name = filename.split('://', 1)[1]
    if name not in urls:
        raise CheckpointError(
            f'{filename} is not a known model name; give a file or an '
            'address instead'
        )
    if '://' in urls[name]:
        return load_from_http(urls[name], map_location)
    # A user's own list (open_mmlab.json) may name files beside it.
    path = os.path.join(_get_mmengine_home(), urls[name])
    return load_from_local(path, map_location)


def _check_hash(path: Path) -> None:
    promised = _HASH_IN_NAME.search(path.name)
    if promised is None:
        return
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for chunk in iter(lambda: file.read(1 << 20), b''):
            digest.update(chunk)
    if not digest.hexdigest().startswith(promised[1]):
        raise CheckpointError(
            f'{path} is not the file its name promises: its sha256 begins '
            f'{digest.hexdigest()[: len(promised[1])]}, not {promised[1]}; '
            'delete it and try again'
        )


def register_loaders() -> None:
    """Make mmengine load checkpoints through this module."""
    for prefix, loader in (
        ('', load_from_local),
        (('http://', 'https://'), load_from_http),
        (('modelzoo://', 'torchvision://'), load_from_torchvision),
        (('open-mmlab://', 'openmmlab://'), load_from_openmmlab),
    ):
        CheckpointLoader.register_scheme(prefix, loader, force=True)
