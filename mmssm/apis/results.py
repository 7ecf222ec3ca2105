"""Keep test results, to show those with and without TTA together."""

import hashlib
import json
import os.path as osp
import time
from numbers import Real
from pathlib import Path

from mmengine.config import Config

from mmssm.utils import UserError, atomic_write
from mmssm.utils.errors import warn
from mmssm.utils.files import file_lock

FILE_NAME = 'test_results.json'
PLAIN, AUGMENTED = 'single-scale', 'tta'
_TITLES = {PLAIN: 'single scale', AUGMENTED: '--tta'}
# What a result depends on, besides the checkpoint and the test set.
_SETTINGS = (
    'model',
    'data_preprocessor',
    'test_cfg',
    'test_evaluator',
    'custom_hooks',
)


def identify(cfg: Config, checkpoint: str) -> dict:
    """Identify a tested model.

    Args:
        cfg (Config): The config as the user gave it, options applied.
        checkpoint (str): A file or address.

    Returns:
        dict: The checkpoint, its file's modification time and a digest of the
        settings that its results depend on.
    """
    settings = {key: cfg.get(key) for key in _SETTINGS}
    # Not the loader itself: --tta may need smaller batches.
    settings['dataset'] = cfg.test_dataloader.dataset
    text = json.dumps(settings, default=str)
    remote = '://' in checkpoint
    return dict(
        checkpoint=checkpoint if remote else osp.realpath(checkpoint),
        modified=None if remote else osp.getmtime(checkpoint),
        settings=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def keep_result(
    folder: str, identity: dict, mode: str, metrics: dict
) -> dict[str, dict]:
    """Add a result to the folder's list and look up the other mode's result.

    The list, ``test_results.json``, has one entry per test: ``time``,
    ``mode`` (``'single-scale'`` or ``'tta'``), ``metrics`` and the fields of
    :func:`identify`.

    Args:
        folder (str): The work directory.
        identity (dict): From :func:`identify`.
        mode (str): :data:`PLAIN` or :data:`AUGMENTED`.
        metrics (dict): What the evaluators returned.

    Returns:
        dict[str, dict]: The newest metrics of the same model by mode.
    """
    numbers = {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, Real)
    }
    entry = dict(
        time=time.strftime('%Y-%m-%d %H:%M:%S'),
        mode=mode,
        **identity,
        metrics=numbers,
    )
    path = Path(folder) / FILE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path):
            entries = [*_read(path), entry]
            with atomic_write(path) as file:
                file.write(json.dumps(entries, indent=1).encode())
    except (OSError, ValueError) as error:
        # Testing can take hours: its result must not be lost.
        warn(f'the results are not kept in {path}: {error}')
        return {mode: numbers}
    return {
        entry['mode']: entry['metrics']
        for entry in entries
        if identity.items() <= entry.items()
    }


def _read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    entries = json.loads(path.read_text())
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and {'mode', 'metrics'} <= entry.keys()
        for entry in entries
    ):
        raise UserError('the file is no list of results; it is not changed')
    return entries


def as_table(results: dict[str, dict]) -> str:
    """The results as lines of text, one metric each, the modes side by side.

    Args:
        results (dict[str, dict]): Metrics by mode.
    """
    modes = [mode for mode in (PLAIN, AUGMENTED) if mode in results]
    names = list(dict.fromkeys(name for m in modes for name in results[m]))
    width = max([len(name) for name in names], default=0)
    lines = [' ' * width + ''.join(f'{_TITLES[m]:>14}' for m in modes)]
    for name in names:
        values = [results[mode].get(name) for mode in modes]
        cells = ['-' if v is None else f'{v:.4f}' for v in values]
        lines.append(f'{name:<{width}}' + ''.join(f'{c:>14}' for c in cells))
    return '\n'.join(lines)
