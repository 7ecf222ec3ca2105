"""Evaluate a checkpoint on a config's test set."""

import argparse

import torch

from mmssm.apis import evaluate
from mmssm.apis.cli import add_common_options, add_optimize, run_tool
from mmssm.checkpoint import allow_unsafe_loading
from mmssm.ops.memory import keep_freed_memory


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint',
        help="checkpoint file or address, also an original author's file",
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation with the config's tta_model and "
        'tta_pipeline',
    )
    parser.add_argument(
        '--out',
        metavar='FILE.pkl',
        help='write the predictions to a pickle, image by image: boxes and '
        'packed masks, label maps or class scores',
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='draw the predictions and write them to this folder, each at '
        "its image's path in the test set",
    )
    add_optimize(parser)
    add_common_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    if not torch.cuda.is_available():
        keep_freed_memory()
    evaluate(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show_dir=args.show_dir,
        optimize=args.optimize,
        tta=args.tta,
        options=args.cfg_options,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    run_tool(main)
