"""Draw searches for scan directions: probabilities and the routes kept."""

import argparse

from mmssm.analysis.direction_search import TOP, read_history
from mmssm.apis.cli import add_unsafe_load, run_tool
from mmssm.checkpoint import allow_unsafe_loading
from mmssm.visualization.direction_search import draw_histories


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'searches',
        nargs='+',
        metavar='LOG_OR_CKPT',
        help='directions.jsonl, a work dir with one, or a checkpoint of the '
        'supernet, which has only the last probabilities',
    )
    parser.add_argument(
        '--out',
        default='directions.png',
        help='the picture, .png, .pdf or .svg (default: %(default)s)',
    )
    parser.add_argument(
        '--top',
        type=int,
        default=TOP,
        help='how many routes each block keeps (default: %(default)s)',
    )
    add_unsafe_load(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    histories = [read_history(path) for path in args.searches]
    draw_histories(histories, args.out, args.top)
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
