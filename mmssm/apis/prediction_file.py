"""Write the predictions of a test to a file while the test runs."""

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mmengine.dist import (
    barrier,
    collect_results,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmssm.utils import ConfigError, atomic_write
from mmssm.utils.errors import warn
from mmssm.utils.files import make_folder

# The last protocol whose items can be written one by one: later ones number
# the objects of the whole file.
_PROTOCOL = 3
_START = pickle.PROTO + bytes([_PROTOCOL]) + pickle.EMPTY_LIST

# The part of a file with an image: its process, its first byte and its end.
_Place = tuple[int, int, int]


class PredictionFileHook(Hook):
    """Write the predictions of a test as a pickle.

    The pickle is what mmengine's ``DumpResults`` writes and the libraries'
    analysis tools read: a list with a dict for each image, in the order of
    the dataset. Here each image is written at once, so that memory does not
    grow with the images.

    Until the test is finished, the images are in ``<out>.part``, or with
    several processes in ``<out>.part0`` and so on. These are whole pickles,
    too, after each image. Those of an earlier test that did not finish are
    kept, as ``<out>.part.1`` and so on.

    Args:
        out (str): The file; its folder is created.
        pack (Callable): Takes a data sample as a dict, returns what to keep.

    Raises:
        ConfigError: ``out`` is not the name of a pickle, or cannot be
            written.
    """

    def __init__(self, out: str, pack: Callable[[Any], Any]) -> None:
        if not out.endswith(('.pkl', '.pickle')):
            raise ConfigError(
                f'--out {out}: the predictions are written as a '
                'pickle; give a name that ends in .pkl'
            )
        self.out = Path(out).expanduser()
        if self.out.is_dir():
            raise ConfigError(f'--out {out} is a folder; name a file in it')
        make_folder(self.out.parent, '--out')
        self._pack = pack
        self._places: list[_Place] = []
        self._file: BinaryIO | None = None

    def before_test(self, runner: Runner) -> None:
        """Open this process's part."""
        self._places.clear()
        part = self._part(get_rank())
        _move_aside(part)
        self._file = open(part, 'wb')
        self._file.write(_START + pickle.STOP)
        self._file.flush()

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Write a batch."""
        for sample in outputs or ():
            if isinstance(sample, BaseDataElement):
                sample = sample.to_dict()
            item = pickle.dumps(self._pack(sample), _PROTOCOL)
            # Without its own start and end, and in place of the list's end.
            item = item[2:-1] + pickle.APPEND
            start = self._file.seek(-1, os.SEEK_END)
            self._file.write(item + pickle.STOP)
            self._file.flush()
            self._places.append((get_rank(), start, start + len(item)))

    def after_test_epoch(
        self, runner: Runner, metrics: dict | None = None
    ) -> None:
        """Make one file of the parts."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        size = len(runner.test_dataloader.dataset)
        barrier()  # the others have written their parts
        places = collect_results(self._places, size, 'cpu')
        if is_main_process():
            if get_world_size() == 1:
                os.replace(self._part(0), self.out)
            else:
                self._join(places)
            runner.logger.info(f'predictions are saved in {self.out}')

    def close(self) -> None:
        """Say where the predictions are if the test did not finish."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        warn(
            'the test did not finish; its predictions so far '
            f'({len(self._places)}) are in {self._part(get_rank())}'
        )

    def _part(self, rank: int) -> Path:
        number = rank if get_world_size() > 1 else ''
        return self.out.with_name(f'{self.out.name}.part{number}')

    def _join(self, places: list[_Place]) -> None:
        """Write the parts' images in the order of the dataset."""
        parts = [open(self._part(i), 'rb') for i in range(get_world_size())]
        with atomic_write(self.out) as file:
            file.write(_START)
            for rank, start, end in places:
                parts[rank].seek(start)
                file.write(parts[rank].read(end - start))
            file.write(pickle.STOP)
        for rank, part in enumerate(parts):
            part.close()
            self._part(rank).unlink()


def _move_aside(part: Path) -> None:
    """Keep what a test that did not finish has left, under another name."""
    if not part.exists():
        return
    number = 1
    while (kept := part.with_name(f'{part.name}.{number}')).exists():
        number += 1
    part.rename(kept)
    warn(f'the predictions of an unfinished test, {part}, are now {kept}')
