"""Options and error handling that the command-line tools share."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from mmengine.config import DictAction

from mmssm.utils.errors import is_user_error, one_line

# Seconds to wait until gloo's threads have released their last tensor.
_LAST_RELEASE = 0.3


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool, turning an error that the user can correct into one line.

    Such an error prints as ``<tool>: error: <message>`` and exits with
    status 2, argparse's own status. Any other exception is a defect of the
    program and keeps its traceback. An error that several processes find is
    printed once. After a defect, the process group is not destroyed: other
    processes may never get that far.

    Args:
        main (Callable): The tool's body, without arguments.
    """
    try:
        main()
        _end_group()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not is_user_error(error):
            raise
        tool, text = os.path.basename(sys.argv[0]), one_line(error)
        if _is_first_to_report(text):
            print(f'{tool}: error: {text}', file=sys.stderr, flush=True)
        _end_group()
        sys.exit(2)


def _is_first_to_report(text: str) -> bool:
    """Whether no other process has printed this text."""
    if not dist.is_initialized():
        # All processes read the same config. Data, which may differ, are
        # read later.
        return os.environ.get('LOCAL_RANK', '0') == '0'
    try:
        store = dist.distributed_c10d._get_default_store()
        return store.add(f'mmssm error: {text}', 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        return True


def _end_group() -> None:
    """Destroy the process group before the interpreter ends.

    A gloo thread needs the interpreter to release its last tensor. If the
    interpreter is already ending, the process aborts, and torchrun reports a
    finished training as failed. DistributedDataParallel keeps these threads
    alive after the group is destroyed (PyTorch 2.11), so wait for them.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(_LAST_RELEASE)


class _ConfigOptions(DictAction):
    """mmengine's parser of KEY=VALUE, which keeps the spaces inside values.

    What cannot be read is an error, not a crash.
    """

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        """Read a value, or a list or tuple of values.

        mmengine removes all spaces; here, only those around a value.
        """
        val = val.strip().strip('\'"').strip()
        brackets = val[:1] + val[-1:]
        is_tuple = brackets == '()'
        if brackets in ('()', '[]') and _is_enclosed(val):
            values = _split(val[1:-1])
        elif ',' in val:
            values, is_tuple = _split(val), False
        else:
            return DictAction._parse_int_float_bool(val)
        values = [_ConfigOptions._parse_iterable(value) for value in values]
        return tuple(values) if is_tuple else values

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError, RecursionError):
            parser.error(
                f'{option_string}: cannot read {" ".join(values)}; write '
                'KEY=VALUE, lists as KEY="[a,b]"; dicts go into the config'
            )


def _is_enclosed(text: str) -> bool:
    """Whether the first bracket is closed by the last one.

    Raises:
        ValueError: A bracket has no partner.
    """
    for left, right in ('()', '[]'):
        if text.count(left) != text.count(right):
            raise ValueError(text)
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in '([') - (letter in ')]')
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """Split at the commas that are in no brackets.

    Raises:
        ValueError: A bracket has no partner.
    """
    parts, depth = [''], 0
    for letter in text:
        depth += (letter in '([') - (letter in ')]')
        if depth < 0:
            raise ValueError(text)
        if letter == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += letter
    if depth:
        raise ValueError(text)
    # As in mmengine, a comma at the end adds nothing.
    return parts if parts[-1].strip() else parts[:-1]


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share."""
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help="folder for logs and checkpoints (default: the config's own, "
        "else work_dirs/<config's name>)",
    )
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started this process (dist_*.sh and slurm_*.sh set it)',
    )
    # torch.distributed.launch, which mim calls, passes this option. It is
    # ignored: PyTorch and mmengine read the rank from the environment.
    parser.add_argument('--local-rank', type=int, help=argparse.SUPPRESS)
    add_unsafe_load(parser)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, for a tool that reads a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_ConfigOptions,
        metavar='KEY=VALUE',
        help='overwrite config values, e.g. train_cfg.max_epochs=3 '
        'model.backbone.arch=small; lists as key="[a,b]"',
    )


def add_optimize(parser: argparse.ArgumentParser) -> None:
    """Add ``--optimize`` to a tool."""
    parser.add_argument(
        '--optimize',
        choices=['float32', 'bfloat16'],
        help='prepare the model for a CPU and compute its matrix products in '
        'this dtype: float32 gives the same results faster; bfloat16 changes '
        'them a little, and is faster still on CPUs with instructions for it',
    )


def add_unsafe_load(parser: argparse.ArgumentParser) -> None:
    """Add ``--unsafe-load``, for a tool that opens a checkpoint."""
    parser.add_argument(
        '--unsafe-load',
        action='store_true',
        help='load checkpoints that contain more than weights and plain '
        'values; this can run code from the file, so only for authors you '
        'trust',
    )
