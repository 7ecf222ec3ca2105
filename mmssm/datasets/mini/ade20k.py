"""The mini segmentation set: digit scenes in ADE20K's format."""

from pathlib import Path

import numpy as np

from .digits import SPLITS
from .images import write_image
from .scenes import SCENES, Scene, draw_scenes

FOLDERS = dict(train='training', test='validation')


def write_ade20k(root: Path, scenes: dict[str, int] = SCENES) -> None:
    """Draw the scenes of both splits and write images and label maps.

    Writes ``images/{training,validation}/*.jpg`` and
    ``annotations/{training,validation}/*.png``: the scenes of the detection
    set, test scenes as ``validation``.

    Args:
        root (Path): An empty directory.
        scenes (dict[str, int]): How many scenes to draw for each split.
    """
    for split in SPLITS:
        images = root / 'images' / FOLDERS[split]
        labels = root / 'annotations' / FOLDERS[split]
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number, scene in enumerate(draw_scenes(split, scenes[split])):
            write_image(images / f'{number:04d}.jpg', scene.image)
            write_image(labels / f'{number:04d}.png', label_map(scene))


def label_map(scene: Scene) -> np.ndarray:
    """The class of each pixel, as ADE20K numbers them.

    Returns:
        np.ndarray: (H, W) uint8: 1 for the ground, 2 + d for digit d. ADE20K
        keeps 0 for what belongs to no class; there is no such pixel here.
    """
    labels = np.ones(scene.image.shape[:2], dtype=np.uint8)
    for instance in scene.instances:
        labels[instance.mask] = 2 + instance.label
    return labels
