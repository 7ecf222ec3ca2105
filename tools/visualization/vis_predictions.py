"""Draw test images with ground truth and predictions side by side.

The config decides what is drawn: boxes and masks of a detector, label maps of
a segmentor, thumbnails with the classes of a classifier (green if correct, red
with the true class if wrong), or for a change detector both images, the truth
and the prediction (false alarms red, missed changes blue).
"""

import argparse

from mmssm.apis.cli import add_config_options, add_unsafe_load, run_tool
from mmssm.apis.predictions import draw_predictions
from mmssm.checkpoint import allow_unsafe_loading
from mmssm.ops.memory import keep_freed_memory
from mmssm.utils.device import find_device


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config', help='a config for mmdet, mmseg or mmpretrain'
    )
    parser.add_argument('checkpoint', help='the trained model')
    parser.add_argument(
        '--num',
        type=int,
        help='how many images, spread evenly over the test set (default: 8, '
        'for a classifier 40)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.5,
        help='for a detector: leave out detections with a lower score '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        default='predictions.png',
        help='the picture, .png or .jpg (default: %(default)s)',
    )
    parser.add_argument(
        '--device',
        help='cpu, cuda or cuda:N (default: a GPU if there is one)',
    )
    add_config_options(parser)
    add_unsafe_load(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    device = find_device(args.device)
    if device.type == 'cpu':
        keep_freed_memory()
    draw_predictions(
        args.config,
        args.checkpoint,
        args.out,
        args.num,
        args.score_thr,
        device,
        args.cfg_options,
    )
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
