"""The mini change detection set: pairs in LEVIR-CD+'s folders."""

from pathlib import Path

import numpy as np

from .digits import SPLITS
from .images import write_image
from .pairs import PAIRS, draw_pairs


def write_levir_cd_plus(root: Path, pairs: dict[str, int] = PAIRS) -> None:
    """Draw the pairs of both splits and write images and labels.

    Writes ``{train,test}/{A,B,label}/*.png``: before, after, and 255 where
    something changed.

    Args:
        root (Path): An empty directory.
        pairs (dict[str, int]): How many pairs to draw for each split.
    """
    for split in SPLITS:
        folders = {name: root / split / name for name in ('A', 'B', 'label')}
        for folder in folders.values():
            folder.mkdir(parents=True)
        for number, pair in enumerate(draw_pairs(split, pairs[split])):
            images = dict(
                A=pair.before,
                B=pair.after,
                label=np.where(pair.changed, 255, 0).astype(np.uint8),
            )
            for name, image in images.items():
                write_image(folders[name] / f'{number:04d}.png', image)
