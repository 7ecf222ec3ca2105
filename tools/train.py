"""Train a detector, segmentor or classifier from a config."""

import argparse

from mmssm.apis import train
from mmssm.apis.cli import add_common_options, run_tool
from mmssm.checkpoint import allow_unsafe_loading


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='continue from this checkpoint; without CKPT, from the newest '
        'checkpoint of the work directory that can be loaded',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='automatic mixed precision; without a GPU, in bfloat16',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the actual total batch size',
    )
    add_common_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    train(
        args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        options=args.cfg_options,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    run_tool(main)
