"""Evaluate a classifier at several image sizes and draw its accuracy."""

import argparse

import torch

from mmssm.apis.cli import add_common_options, run_tool
from mmssm.apis.resolutions import evaluate_resolutions
from mmssm.checkpoint import allow_unsafe_loading
from mmssm.ops.memory import keep_freed_memory


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='with several processes: python tools/torchrun.py --standalone '
        '--nproc_per_node GPUS tools/analysis_tools/eval_resolutions.py ... '
        '--launcher pytorch',
    )
    parser.add_argument('config', help="a classifier's config file")
    parser.add_argument(
        'checkpoint',
        help="checkpoint file or address, also an original author's file",
    )
    parser.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        required=True,
        metavar='PX',
        help='heights and widths of the images, e.g. 224 384 512; the '
        'size before a crop and the batch size are adapted',
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='the picture, .png, .pdf or .svg (default: resolutions.png in '
        'the work dir)',
    )
    add_common_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    if not torch.cuda.is_available():
        keep_freed_memory()
    evaluate_resolutions(
        args.config,
        args.checkpoint,
        args.sizes,
        out=args.out,
        work_dir=args.work_dir,
        options=args.cfg_options,
        launcher=args.launcher,
    )


if __name__ == '__main__':
    run_tool(main)
