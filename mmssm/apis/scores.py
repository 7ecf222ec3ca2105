"""The scores of a test: overall, of each class, and a confusion matrix.

The libraries' metrics return only some of the classes' scores. The others are
in tables that they write to the log, where :class:`LogReader` finds them.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch

from mmssm.utils.errors import one_line, warn

# What mmdet logs before the table of boxes or of masks.
_TITLE = re.compile(r'Evaluating (\w+)\.\.\.$')
_CLASSWISE = '_classwise'  # how mmpretrain's names of such lists end


@dataclass
class Scores:
    """What a test found.

    Attributes:
        metrics (dict[str, float | None]): The overall metrics by name. A value
            that is not a number is NaN, or None if it was read from a file.
        per_class (dict[str, dict[str, float | None]]): By the name of a
            score, its value for each class, by the class's name; likewise.
        confusion_matrix (dict | None): ``classes``, their names, and
            ``counts``, how many images (pixels, objects) of the class of a
            row were predicted as the class of a column.
        notes (list[str]): Why something is missing.
    """

    metrics: dict[str, float | None] = field(default_factory=dict)
    per_class: dict[str, dict[str, float | None]] = field(default_factory=dict)
    confusion_matrix: dict | None = None
    notes: list[str] = field(default_factory=list)


class LogReader(logging.Handler):
    """Keep the tables of classes and the errors that metrics log.

    Attributes:
        tables (list[tuple[str, list[list[str]]]]): The title, if there is
            one, and the rows of cells of each table, its header first.
        errors (list[str]): Messages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.errors: list[str] = []
        self._title = ''

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a message."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # the other handlers report it
            return
        if record.levelno >= logging.ERROR:
            self.errors.append(text)
        if title := _TITLE.search(text):
            self._title = f'{title[1]}_'
        # Lines of mmdet's AsciiTable and of mmseg's PrettyTable.
        rows = [
            [cell.strip() for cell in line.strip()[1:-1].split('|')]
            for line in text.splitlines()
            if line.startswith('|')
        ]
        if len(rows) > 1:
            self.tables.append((self._title, rows))


def read_scores(
    metrics: dict, log: LogReader, names: Sequence[str] | None
) -> Scores:
    """Sort what the metrics returned and logged.

    If the scores of the classes cannot be read, there is a warning.

    Args:
        metrics (dict): What the evaluator returned.
        log (LogReader): What was logged meanwhile.
        names (Sequence[str] | None): The names of the classes, if known.

    Returns:
        Scores: Without the reasons for what is missing.
    """
    scores, arrays = Scores(), {}
    for name, value in metrics.items():
        array = _as_array(value)
        if isinstance(value, Real):
            scores.metrics[name] = float(value)
        elif array is not None and array.size == 1:
            scores.metrics[name] = float(array.item())
        elif array is not None:
            arrays[name] = array
    try:
        _add_classes(scores, arrays, log, names)
    except Exception as error:  # a test can take hours: keep its metrics
        warn(f'not all scores of the classes can be read: {one_line(error)}')
    return scores


def explain_missing(metrics: Iterable[object], log: LogReader) -> list[str]:
    """Say why there are no scores.

    Args:
        metrics (Iterable[object]): The evaluator's metrics.
        log (LogReader): What was logged meanwhile.
    """
    notes = []
    for metric in metrics:
        if getattr(metric, 'format_only', False):
            place = getattr(metric, 'outfile_prefix', None)
            place = place or getattr(metric, 'output_dir', None)
            notes.append(
                f'{type(metric).__name__} has format_only=True: it writes '
                f'results to {place} and computes none'
            )
    if any('results of the whole dataset is empty' in e for e in log.errors):
        notes.append(
            'the model found nothing in any test image: is the checkpoint '
            'trained, and score_thr in model.test_cfg not too high?'
        )
    return notes or ['the test_evaluator returned none']


def _as_array(value: Any) -> np.ndarray | None:
    """Numbers as an array; None if it is something else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, (np.ndarray, list, tuple)):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    return array if array.size and array.dtype.kind in 'iuf' else None


def _add_classes(
    scores: Scores,
    arrays: dict[str, np.ndarray],
    log: LogReader,
    names: Sequence[str] | None,
) -> None:
    """Add the scores of each class and the confusion matrix."""
    for name, array in arrays.items():
        if array.ndim == 1:
            column = name.removesuffix(_CLASSWISE)
            classes = _class_names(names, len(array))
            _add_column(scores, column, dict(zip(classes, array.tolist())))
        elif array.ndim != 2 or len(set(array.shape)) > 1:
            continue
        elif not np.isfinite(array).all():
            warn(f'{name}: not kept, for it has values that are no counts')
        elif scores.confusion_matrix is not None:
            warn(f'{name}: only the first confusion matrix is kept')
        else:
            scores.confusion_matrix = dict(
                classes=_class_names(names, len(array)), counts=array.tolist()
            )
    for title, rows in log.tables:
        _add_table(scores, title, rows, names or ())
    # mmdet also returns a column of its last table.
    classes = [name for column in scores.per_class.values() for name in column]
    for name in {f'{name}_precision' for name in classes}:
        for key in [k for k in scores.metrics if k.endswith(f'/{name}')]:
            del scores.metrics[key]


def _class_names(names: Sequence[str] | None, count: int) -> list[str]:
    """One name for each class, its number if the names do not fit."""
    if names is not None and len(set(names)) == len(names) == count:
        return list(names)
    return [str(number) for number in range(count)]


def _add_table(
    scores: Scores, title: str, rows: list[list[str]], names: Sequence[str]
) -> None:
    """Add the columns of a table if its lines are those of classes."""
    known = {name.strip(): name for name in names}
    header, *lines = rows
    lines = [
        line for line in lines if line[0] in known and len(line) == len(header)
    ]
    for place, column in enumerate(header):
        values = {known[line[0]]: _number(line[place]) for line in lines}
        if place and values and None not in values.values():
            _add_column(scores, f'{title}{column}', values)


def _add_column(scores: Scores, name: str, values: dict[str, float]) -> None:
    """Add a column; if its name has other values, number it."""
    free, number = name, 1
    while free in scores.per_class:
        if _same(scores.per_class[free], values):
            return
        number += 1
        free = f'{name}_{number}'
    scores.per_class[free] = values


def _same(first: dict[str, float], second: dict[str, float]) -> bool:
    if first.keys() != second.keys():
        return False
    pairs = [(value, second[name]) for name, value in first.items()]
    return np.array_equal(*np.transpose(pairs), equal_nan=True)


def _number(text: str) -> float | None:
    """The number, which may be NaN; None for other text."""
    try:
        return float(text)
    except ValueError:
        return None
