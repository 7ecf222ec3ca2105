"""Draw the training curves of one or more runs."""

import argparse

from mmssm.apis.cli import run_tool
from mmssm.visualization.curves import plot_runs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='LOG_OR_WORKDIR',
        help='work dir of a run, or its <time>/vis_data/scalars.json',
    )
    parser.add_argument(
        '--keys',
        nargs='+',
        help='logged quantities to draw (default: the loss and the main '
        'metric of the task)',
    )
    parser.add_argument(
        '--out',
        default='curve.png',
        help='the picture, .png, .pdf or .svg (default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    plot_runs(args.runs, args.out, args.keys)
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
