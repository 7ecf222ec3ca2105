"""Log the course of a search for scan directions."""

import json
import math
from collections import Counter
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from mmssm.analysis.direction_search import FILE_NAME, read_records
from mmssm.backbones.directions import CANDIDATES
from mmssm.layers.route_merge import SearchedSum
from mmssm.utils import ConfigError, atomic_write


@HOOKS.register_module()
class DirectionSearchHook(Hook):
    """Log the routes that a search for scan directions prefers.

    The model is the supernet of `LocalMamba
    <https://arxiv.org/abs/2403.09338>`_: a backbone with
    ``directions='search'``, which weights all candidates in every block. The
    first process adds a line of JSON to ``<work_dir>/<out_file>`` before the
    first iteration, every ``interval`` iterations and at the end:

    - **iter** (int): Iterations done.
    - **epoch** (int): Epochs done; 0 in a training by iterations, until it
      ends.
    - **candidates** (list[str]): The candidate routes.
    - **probabilities** (list[list[float]]): Their probabilities in each block.

    A resumed run continues the file and replaces the lines that it repeats;
    a new run starts the file again. ``tools/visualization/vis_search.py``
    draws it, and ``tools/search/derive_directions.py`` makes a config from
    the last checkpoint.

    Args:
        interval (int): Iterations between two lines. Defaults to 200.
        out_file (str): The file's name, ending in ``.jsonl``. Defaults to
            ``'directions.jsonl'``.

    Raises:
        ConfigError: ``interval`` or ``out_file`` is invalid. When training
            starts: the model is not a supernet, or the file that a resumed
            run would continue was not written by this hook.

    Example:
        >>> model = dict(backbone=dict(directions='search'))
        >>> custom_hooks = [dict(type='mmssm.engine.DirectionSearchHook')]
    """

    def __init__(self, interval: int = 200, out_file: str = FILE_NAME) -> None:
        if not (isinstance(interval, int) and interval > 0):
            raise ConfigError(
                'DirectionSearchHook: interval is a number of iterations, at '
                f'least 1, got {interval!r}'
            )
        if Path(out_file).suffix != '.jsonl':
            raise ConfigError(
                'DirectionSearchHook: out_file must end in .jsonl, got '
                f'{out_file!r}'
            )
        self.interval = interval
        self.out_file = out_file
        self._merges: list[SearchedSum] = []
        self._path = Path()
        self._last: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Find the weights; start the file or cut it for a resumed run."""
        self._merges = [
            module
            for module in runner.model.modules()
            if isinstance(module, SearchedSum)
        ]
        if not self._merges:
            raise ConfigError(
                'DirectionSearchHook: the model chooses between no scan '
                "directions; search with model.backbone.directions='search' "
                '(of LocalVim or LocalVMamba), or leave the hook out'
            )
        if not is_main_process():
            return
        self._path = Path(runner.work_dir, self.out_file)
        kept = self._read_back(runner.iter)
        with atomic_write(self._path) as file:
            file.write(''.join(map(_line, kept)).encode())
        self._last = kept[-1]['iter'] if kept else None
        if not kept:
            self._write(runner, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Write every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._write(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        """Write the result."""
        self._write(runner, runner.iter)

    def _read_back(self, iteration: int) -> list[dict]:
        """The file's records up to an iteration; none for a new run."""
        if iteration == 0 or not self._path.exists():
            return []
        try:
            records = read_records(self._path)
        except ValueError as error:
            raise ConfigError(
                f'DirectionSearchHook cannot continue its file: {error}; '
                'move it away or choose another out_file'
            ) from error
        return [record for record in records if record['iter'] <= iteration]

    def _write(self, runner: Runner, iteration: int) -> None:
        if not is_main_process() or self._last == iteration:
            return
        self._last = iteration
        shares = torch.stack([m.probabilities() for m in self._merges])
        shares = shares.detach().double().cpu()
        record = dict(
            iter=iteration,
            epoch=iteration * runner.max_epochs // runner.max_iters,
            candidates=CANDIDATES,
            probabilities=[[round(p, 8) for p in b] for b in shares.tolist()],
        )
        with open(self._path, 'a', encoding='utf-8') as file:
            file.write(_line(record))
        runner.logger.info(
            f'Direction search, iteration {iteration}: {summary(shares)}'
        )


def summary(probabilities: Tensor) -> str:
    """Format the entropy and the likeliest routes of a search in one line.

    Args:
        probabilities (Tensor): The candidates' probabilities, (blocks, 8).
    """
    entropy = torch.special.entr(probabilities).sum(1).mean().item()
    first = Counter(CANDIDATES[i] for i in probabilities.argmax(1).tolist())
    ranking = ', '.join(f'{name} in {n}' for name, n in first.most_common())
    return (
        f'entropy {entropy / math.log(len(CANDIDATES)):.4f} of an even '
        f"choice's; likeliest of {len(probabilities)} blocks: {ranking}"
    )


def _line(record: dict) -> str:
    return json.dumps(record) + '\n'
