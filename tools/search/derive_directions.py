"""Print the scan directions that a search found, and write them to a config.

The checkpoint is of a search in mmssm (backbone=dict(directions='search')) or
in the original code.
"""

import argparse

from mmssm.analysis.direction_search import (
    TOP,
    as_table,
    derive,
    load_probabilities,
    write_fragment,
)
from mmssm.apis.cli import add_unsafe_load, run_tool
from mmssm.checkpoint import allow_unsafe_loading
from mmssm.utils import ConfigError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'checkpoint', metavar='CKPT', help='checkpoint of the supernet'
    )
    parser.add_argument(
        '--top',
        type=int,
        default=TOP,
        help='how many routes each block keeps (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        metavar='CONFIG',
        help='config to write, with the directions as '
        'model.backbone.directions',
    )
    parser.add_argument(
        '--base',
        metavar='CONFIG',
        help='config of the model to train, which --out inherits; '
        'without it, add a line _base_ = ... yourself',
    )
    add_unsafe_load(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    if args.base and not args.out:
        raise ConfigError('--base needs a config to write; add --out CONFIG')
    names, probabilities = load_probabilities(args.checkpoint)
    directions = derive(probabilities, args.top)
    if args.out:
        write_fragment(args.out, directions, args.checkpoint, args.base)
    print(as_table(names, probabilities, directions))
    if args.out:
        print(f'written: {args.out}')


if __name__ == '__main__':
    run_tool(main)
