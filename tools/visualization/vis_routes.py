"""Draw routes over a map, colored by time, with their scores.

The score is the structural distortion: the number of steps of the route from a
token to its neighbors on the map, added up over the neighbors.
"""

import argparse

from mmssm.apis.cli import run_tool
from mmssm.visualization.routes import DEFAULT_ROUTES, draw_routes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        default=(14, 14),
        metavar=('H', 'W'),
        help='rows and columns of the map (default: 14 14)',
    )
    parser.add_argument(
        '--routes',
        nargs='+',
        default=DEFAULT_ROUTES,
        metavar='ROUTE',
        help=f'routes to draw (default: {" ".join(DEFAULT_ROUTES)})',
    )
    parser.add_argument(
        '--pathways',
        type=float,
        default=0.0,
        metavar='SHARE',
        help="draw FractalMamba's trees along the routes, in which this share "
        'of tokens has an earlier neighbor as parent (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        default='routes.png',
        help='the picture, .png, .jpg, .pdf or .svg (default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    draw_routes(args.routes, *args.size, args.out, args.pathways)
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
