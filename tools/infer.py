"""Predict for your own images: pictures and JSON files.

The config decides the task: detection, instance or panoptic segmentation,
semantic segmentation, classification or change detection. Change detection
needs pairs: earlier images as IMAGE_OR_DIR, later ones with --after; GeoTIFF
files may have any size. Pictures go to OUT_DIR/vis, results to OUT_DIR/preds.
The exit status is 1 if an image was skipped: it could not be read, has no
partner, or the model cannot process it.
"""

import argparse
import sys

from mmssm.apis import infer
from mmssm.apis.cli import (
    add_config_options,
    add_optimize,
    add_unsafe_load,
    run_tool,
)
from mmssm.checkpoint import allow_unsafe_loading
from mmssm.ops.memory import keep_freed_memory
from mmssm.utils.device import find_device


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'inputs',
        metavar='IMAGE_OR_DIR',
        help='an image, or a folder with images (also in subfolders)',
    )
    parser.add_argument(
        'config',
        metavar='CONFIG',
        help='config file, or the name of a model in model-index.yml',
    )
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        nargs='?',
        help="checkpoint file or address, also an original author's file; "
        'not needed for the name of a model with published weights',
    )
    parser.add_argument(
        '--after',
        metavar='IMAGE_OR_DIR',
        help='for change detection: the later image, or a folder with the '
        'later images, which have the names of the earlier ones',
    )
    parser.add_argument(
        '--out-dir',
        metavar='DIR',
        help="folder for the results (default: outputs/<config's name>)",
    )
    parser.add_argument(
        '--device',
        help='cpu, cuda or cuda:N (default: a GPU if there is one)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='leave out detections with a lower score (default: %(default)s)',
    )
    add_optimize(parser)
    add_config_options(parser)
    add_unsafe_load(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    device = find_device(args.device)
    if device.type == 'cpu':
        keep_freed_memory()
    summary = infer(
        args.inputs,
        args.config,
        args.checkpoint,
        out_dir=args.out_dir,
        device=device,
        score_thr=args.score_thr,
        optimize=args.optimize,
        options=args.cfg_options,
        after=args.after,
    )
    print(f'{summary}; results in {summary.out_dir}')
    sys.exit(1 if summary.skipped else 0)


if __name__ == '__main__':
    run_tool(main)
