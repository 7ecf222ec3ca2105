"""Draw test images with ground truth and detections side by side."""

import argparse

from mmssm.analysis.detections import draw_detections
from mmssm.checkpoint import allow_unsafe_loading
from mmssm.engine import add_unsafe_load, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='an mmdet config')
    parser.add_argument('checkpoint', help='the trained detector')
    parser.add_argument(
        '--num',
        type=int,
        default=8,
        help='how many images, spread over the test set (default: 8)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.5,
        help='leave out detections that score less (default: 0.5)',
    )
    parser.add_argument(
        '--out',
        default='detections.png',
        help='the picture, .png or .jpg (default: %(default)s)',
    )
    parser.add_argument(
        '--device',
        help='where the detector runs (default: a GPU if there is one)',
    )
    add_unsafe_load(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    draw_detections(
        args.config,
        args.checkpoint,
        args.out,
        args.num,
        args.score_thr,
        args.device,
    )
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
