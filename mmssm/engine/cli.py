"""Command-line options that the tools share."""

import argparse

from mmengine.config import DictAction


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
