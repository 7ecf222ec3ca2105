"""``python -m mmssm.datasets.mini``: build the mini datasets."""

import argparse
import sys
from pathlib import Path

from .dataset import build_mini_coco


def main() -> None:
    """Build every mini dataset under the folder asked for."""
    parser = argparse.ArgumentParser(
        prog='python -m mmssm.datasets.mini',
        description="Draw the mini datasets from scikit-learn's handwritten "
        'digits (a few seconds). What is already there is kept.',
    )
    parser.add_argument(
        '--root',
        type=Path,
        default=Path('data/mini'),
        help='folder of the datasets (default: %(default)s)',
    )
    root = parser.parse_args().root
    try:
        build_mini_coco(root / 'coco')
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    print(f'{root / "coco"} is ready')


if __name__ == '__main__':
    main()
