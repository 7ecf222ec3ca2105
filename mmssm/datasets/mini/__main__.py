"""``python -m mmssm.datasets.mini``: build the mini datasets."""

import argparse
import sys
from pathlib import Path

from .dataset import WRITERS, build_mini


def main() -> None:
    """Build the mini datasets asked for."""
    parser = argparse.ArgumentParser(
        prog='python -m mmssm.datasets.mini',
        description="Draw the mini datasets from scikit-learn's handwritten "
        'digits (a few seconds). What is already there is kept.',
    )
    parser.add_argument(
        'names',
        nargs='*',
        metavar='NAME',
        help=f'which: {", ".join(WRITERS)} (default: all)',
    )
    parser.add_argument(
        '--root',
        type=Path,
        default=Path('data/mini'),
        help='folder of the datasets (default: %(default)s)',
    )
    args = parser.parse_args()
    for name in args.names:
        if name not in WRITERS:
            parser.error(
                f'unknown dataset {name!r}: choose from {", ".join(WRITERS)}'
            )
    for name in args.names or WRITERS:
        try:
            build_mini(name, args.root / name)
        except (OSError, ValueError) as error:
            sys.exit(f'error: {error}')
        print(f'{args.root / name} is ready')


if __name__ == '__main__':
    main()
