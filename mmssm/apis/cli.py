"""What the command-line tools share: options, and how they end."""

import argparse
import os
import sys
import time
from collections.abc import Callable

import torch.distributed as dist
from mmengine.config import DictAction

from mmssm.utils.errors import is_user_error, one_line

# Seconds for gloo's last release, which takes a moment of the interpreter's.
_LAST_RELEASE = 0.3


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool, turning an error that the user can correct into one line.

    Such an error prints as ``<tool>: error: <message>`` and exits with
    status 2, argparse's own status. Any other exception is a defect of the
    program and keeps its traceback. What several processes find is printed
    once. The process group is ended unless the program failed: other
    processes may not get that far.

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
    """Whether no other process has printed the same."""
    if not dist.is_initialized():
        # A config is the same for all; data, which may differ, come later.
        return os.environ.get('LOCAL_RANK', '0') == '0'
    try:
        store = dist.distributed_c10d._get_default_store()
        return store.add(f'mmssm error: {text}', 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        return True


def _end_group() -> None:
    """End the process group, before the interpreter ends.

    A thread of gloo that has yet to release its last tensor needs the
    interpreter; if that is ending already, the process aborts, and torchrun
    takes a finished training for a failed one. DistributedDataParallel keeps
    these threads alive beyond the group (PyTorch 2.11), so it is given time.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(_LAST_RELEASE)


class _ConfigOptions(DictAction):
    """mmengine's parser of KEY=VALUE, with an error instead of a crash."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError, RecursionError):
            parser.error(
                f'{option_string}: cannot read {" ".join(values)}; write '
                'KEY=VALUE, lists as KEY="[a,b]"; dicts go into the config'
            )


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing have in common."""
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
    # torch.distributed.launch, which mim calls, says it twice: PyTorch and
    # mmengine read it from the environment.
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


def add_unsafe_load(parser: argparse.ArgumentParser) -> None:
    """Add ``--unsafe-load``, for a tool that opens a checkpoint."""
    parser.add_argument(
        '--unsafe-load',
        action='store_true',
        help='load checkpoints that hold more than weights and plain values; '
        'this can run code from the file, so only for authors you trust',
    )
