"""Draw images of a dataset with their annotations, before any training.

The images are drawn as the model gets them, after the pipeline of the config:
boxes and masks of a detector, label maps of a segmentor, thumbnails with the
classes of a classifier, or for a change detector both images and what changed.
Prints how many images there are and how many objects of each class.
"""

import argparse

from mmssm.apis.browse import SPLITS, browse_dataset
from mmssm.apis.cli import add_config_options, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config', help='a config for mmdet, mmseg or mmpretrain'
    )
    parser.add_argument(
        '--split',
        choices=SPLITS,
        default='train',
        help="the config's dataset to draw (default: %(default)s)",
    )
    parser.add_argument(
        '--num',
        type=int,
        help='how many images, spread evenly over the dataset (default: 8, '
        'for a classifier 40)',
    )
    parser.add_argument(
        '--out',
        default='dataset.png',
        help='the picture, .png or .jpg (default: %(default)s)',
    )
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    print(
        browse_dataset(
            args.config, args.out, args.split, args.num, args.cfg_options
        )
    )
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
