"""Training curves, from the scalars that mmengine logs."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmssm.utils import UserError

SCALARS = Path('vis_data', 'scalars.json')


@dataclass
class Series:
    """One logged quantity over the course of training."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def cut(self, step: int) -> None:
        """Remove what was logged at ``step`` and later."""
        keep = sum(earlier < step for earlier in self.steps)
        del self.steps[keep:], self.values[keep:]


@dataclass
class Run:
    """The scalars of one training run, joined over interruptions.

    Attributes:
        name (str): The run's name in a legend.
        train (dict[str, Series]): By key; steps are iterations.
        val (dict[str, Series]): By key; steps are epochs if epochs were
            logged, iterations otherwise.
        epochs (dict[int, int]): The first iteration logged in each epoch;
            empty if no epochs were logged.
    """

    name: str
    train: dict[str, Series] = field(default_factory=dict)
    val: dict[str, Series] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)

    def iterations_per_epoch(self) -> float:
        """Iterations in an epoch, or 1 if no epochs were logged."""
        if not self.epochs:
            return 1.0
        # The first record has the same distance from the start of each epoch.
        first, last = min(self.epochs), max(self.epochs)
        if first != last:
            return (self.epochs[last] - self.epochs[first]) / (last - first)
        return max(max(series.steps) for series in self.train.values()) / first

    def line(
        self, key: str, in_epochs: bool
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The positions and values of a key; None if it was not logged.

        Args:
            key (str): A logged key.
            in_epochs (bool): Whether to count epochs, which the run must have
                logged, or iterations.
        """
        if key not in self.train and key not in self.val:
            return None
        series = self.train[key] if key in self.train else self.val[key]
        positions = np.array(series.steps, dtype=float)
        if in_epochs and key in self.train:
            positions /= self.iterations_per_epoch()
        elif not in_epochs and key not in self.train:
            positions *= self.iterations_per_epoch()
        return positions, np.array(series.values)

    def keys(self) -> list[str]:
        """All keys that were logged."""
        return sorted({*self.train, *self.val})


def read_run(path: str | Path) -> Run:
    """Read what a training run logged.

    Args:
        path (str | Path): A ``scalars.json``, the folder of one start
            (``20260131_120000``) or a whole work dir. The starts of a resumed
            run are joined: a later start replaces the steps that it repeats.

    Raises:
        UserError: If there is no log, or it is damaged or empty.
    """
    path = Path(path)
    if path.is_file():
        logs = [path]
    elif (path / SCALARS).is_file():
        logs = [path / SCALARS]
    else:
        logs = sorted(path.glob(f'*/{SCALARS}'))
    if not logs:
        raise UserError(
            f'no training log at {path}: give a work dir that has a '
            f'<time>/{SCALARS}, or that file'
        )
    run = Run(_run_name(path))
    for log in logs:
        _add_log(run, log)
    if not run.keys():
        raise UserError(f'nothing was logged yet in {path}')
    return run


def _run_name(path: Path) -> str:
    path = path.resolve()
    if path.is_file():
        folder = path.parent
        return (
            path.stem
            if folder.name != 'vis_data'
            else _run_name(folder.parent)
        )
    # The folder of one start is in the work dir, which has the name.
    return path.parent.name if (path / SCALARS).is_file() else path.name


def _add_log(run: Run, log: Path) -> None:
    records = []
    lines = log.read_text().splitlines()
    for number, text in enumerate(lines, 1):
        try:
            record = json.loads(text)
            record['step'] = int(record['step'])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):  # cut off when the run was killed
                break
            raise UserError(
                f'{log} is not a log of mmengine (line {number} is no record '
                'with a "step"): give its vis_data/scalars.json'
            ) from None
        records.append(record)
    _place_evaluations(run, records)
    # Training records have a learning rate, evaluations do not.
    train = [record for record in records if 'lr' in record]
    val = [record for record in records if 'lr' not in record]
    _append(run.train, train)
    _append(run.val, val)
    for record in train:
        if 'epoch' in record:
            run.epochs.setdefault(record['epoch'], record['step'])


def _place_evaluations(run: Run, records: list[dict]) -> None:
    """Give evaluations steps in the unit of the training.

    mmengine's logger counts evaluations in epochs, or in iterations if
    ``log_metric_by_epoch`` is off. In a training by iterations it logs epoch
    0 for all of them.
    """
    by_epoch = any('epoch' in record for record in records) or run.epochs
    epoch = None
    # The last step of an earlier start, until this one logs.
    step = max((series.steps[-1] for series in run.train.values()), default=0)
    for record in records:
        if 'lr' in record:
            epoch, step = record.get('epoch'), record['step']
        elif by_epoch and epoch is not None:
            record['step'] = min(record['step'], epoch)
        elif not by_epoch:
            record['step'] = max(record['step'], step)


def _append(table: dict[str, Series], records: list[dict]) -> None:
    if not records:
        return
    for key, series in list(table.items()):
        series.cut(records[0]['step'])
        if not series.steps:
            del table[key]
    for record in records:
        for key, value in record.items():
            if key in ('step', 'iter', 'epoch'):
                continue
            series = table.setdefault(key, Series())
            series.steps.append(record['step'])
            series.values.append(value)
