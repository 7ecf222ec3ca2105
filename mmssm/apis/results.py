"""Keep test results, to show those with and without TTA together."""

import hashlib
import json
import os.path as osp
import time
from dataclasses import asdict, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmssm.utils import UserError, atomic_write
from mmssm.utils.errors import warn
from mmssm.utils.files import file_lock

from .scores import Scores

FILE_NAME = 'test_results.json'
PLAIN, AUGMENTED = 'single-scale', 'tta'
_TITLES = {PLAIN: 'single scale', AUGMENTED: '--tta'}
_WIDEST = 100  # characters of a confusion matrix that is printed whole
_LISTED = 10  # errors listed of a wider one
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
    folder: str, identity: dict, mode: str, scores: Scores
) -> dict[str, Scores]:
    """Add a result to the folder's list and look up the other mode's result.

    The list, ``test_results.json``, has one entry per test: ``time``,
    ``mode`` (``'single-scale'`` or ``'tta'``), the fields of :func:`identify`
    and, as far as there are some, those of :class:`Scores`. A score that is
    not a number, or infinite, is null.

    Args:
        folder (str): The work directory.
        identity (dict): From :func:`identify`.
        mode (str): :data:`PLAIN` or :data:`AUGMENTED`.
        scores (Scores): The result.

    Returns:
        dict[str, Scores]: The newest scores of the same model by mode.
    """
    found = {k: v for k, v in asdict(scores).items() if v or k == 'metrics'}
    entry = dict(
        time=time.strftime('%Y-%m-%d %H:%M:%S'), mode=mode, **identity, **found
    )
    path = Path(folder) / FILE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path):
            entries = [*_read(path), entry]
            with atomic_write(path) as file:
                file.write(_as_json(entries).encode())
    except (OSError, ValueError) as error:
        # Testing can take hours: its result must not be lost.
        warn(f'the results are not kept in {path}: {error}')
        return {mode: scores}
    parts = [part.name for part in fields(Scores)]
    return {
        entry['mode']: Scores(**{k: entry[k] for k in parts if k in entry})
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


def _as_json(entries: list[dict]) -> str:
    """JSON with a line for each field: a matrix has many numbers."""
    blocks = []
    for entry in entries:
        lines = [
            f'  "{key}": {json.dumps(_without_nan(value), allow_nan=False)}'
            for key, value in entry.items()
        ]
        blocks.append(' {\n' + ',\n'.join(lines) + '\n }')
    return '[\n' + ',\n'.join(blocks) + '\n]\n'


def _without_nan(value: Any) -> Any:
    """The value with None for NaN and infinities, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def as_table(results: dict[str, Scores]) -> str:
    """The results as lines of text, the modes side by side.

    One line for each metric, then one for each class, then the confusion
    matrix of the newest mode, or its largest errors if it is wide.

    Args:
        results (dict[str, Scores]): Scores by mode.
    """
    modes = [mode for mode in (PLAIN, AUGMENTED) if mode in results]
    names = list(
        dict.fromkeys(name for m in modes for name in results[m].metrics)
    )
    blocks = [
        _lines(
            [['', *(_TITLES[mode] for mode in modes)]]
            + [
                [name, *(_cell(results[m].metrics.get(name)) for m in modes)]
                for name in names
            ]
        )
    ]
    blocks.append(_class_lines(results, modes))
    for mode in modes:
        if results[mode].confusion_matrix:
            title = f'confusion matrix, {_TITLES[mode]}'
            blocks.append(
                [title, *_confusion_lines(results[mode].confusion_matrix)]
            )
        blocks.append([f'no metrics: {n}' for n in results[mode].notes])
    return '\n\n'.join('\n'.join(lines) for lines in blocks if lines)


def _class_lines(results: dict[str, Scores], modes: list[str]) -> list[str]:
    """A line for each class; a column for each score in each mode."""
    columns = list(
        dict.fromkeys(name for m in modes for name in results[m].per_class)
    )
    header, values = ['class'], []
    for column in columns:
        for mode in modes:
            mark = ' --tta' if mode == AUGMENTED and len(modes) > 1 else ''
            header.append(f'{column}{mark}')
            values.append(results[mode].per_class.get(column, {}))
    names = dict.fromkeys(name for column in values for name in column)
    if not names:
        return []
    rows = [
        [name, *(_cell(column.get(name)) for column in values)]
        for name in names
    ]
    return _lines([header, *rows])


def _confusion_lines(matrix: dict) -> list[str]:
    """The matrix, or the pairs of classes that are confused most."""
    classes, counts = matrix['classes'], np.array(matrix['counts'])
    rows = [
        [name, *map(str, row)] for name, row in zip(classes, counts.tolist())
    ]
    lines = _lines([['truth \\ predicted', *classes], *rows], 0)
    if len(lines[0]) <= _WIDEST:
        return lines
    totals = counts.sum(1)
    np.fill_diagonal(counts, 0)
    rows = [['truth', 'predicted', 'count', 'of the truth']]
    for place in np.argsort(-counts, axis=None, kind='stable')[:_LISTED]:
        true, predicted = divmod(int(place), len(classes))
        count = counts[true, predicted]
        if count:
            share = f'{count / totals[true]:.1%}'
            rows.append([classes[true], classes[predicted], f'{count}', share])
    more = f'the {len(rows) - 1} largest errors; all are in {FILE_NAME}'
    return [more, *_lines(rows)]


def _cell(value: float | None) -> str:
    """A number; '-' if there is none, or it is NaN or infinite."""
    return '-' if value is None or not isfinite(value) else f'{value:.4f}'


def _lines(rows: list[list[str]], narrowest: int = 14) -> list[str]:
    """Lines of text with aligned columns, the first one on the left."""
    first = max(len(row[0]) for row in rows)
    widths = [
        max(narrowest, *(len(cell) + 2 for cell in column))
        for column in zip(*(row[1:] for row in rows))
    ]
    return [
        f'{name:<{first}}'
        + ''.join(f'{cell:>{width}}' for cell, width in zip(cells, widths))
        for name, *cells in rows
    ]
