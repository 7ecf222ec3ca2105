"""The mini classification set: single digits in ImageNet's folders."""

from pathlib import Path

import numpy as np
from rich.progress import track

from .digits import CLASSES, SPLITS, load_digit_bank
from .images import write_image
from .scenes import SEED, draw_portrait

FOLDERS = dict(train='train', test='val')
# How often each digit is drawn, on other ground and in another color.
PORTRAITS = dict(train=3, test=1)


def write_imagenet(root: Path, portraits: dict[str, int] = PORTRAITS) -> None:
    """Draw each digit alone, the digits of other writers as ``val``.

    Writes ``{train,val}/<digit>/<index>_<number>.jpg``, where the index is
    the digit's position in scikit-learn's set.

    Args:
        root (Path): An empty directory.
        portraits (dict[str, int]): How often to draw each digit of a split.
    """
    for split in SPLITS:
        folder = root / FOLDERS[split]
        for name in CLASSES:
            (folder / name).mkdir(parents=True)
        bank = load_digit_bank(split)
        for position in track(range(len(bank)), f'drawing {split} digits'):
            label, index = bank.labels[position], bank.indices[position]
            for number in range(portraits[split]):
                rng = np.random.default_rng([SEED, index, number])
                write_image(
                    folder / CLASSES[label] / f'{index:04d}_{number}.jpg',
                    draw_portrait(rng, bank.ink[position]),
                )
