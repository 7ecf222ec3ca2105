"""The mini detection set: digit scenes in COCO's format."""

import json
from pathlib import Path

import cv2
import numpy as np

from .digits import CLASSES, SPLITS
from .images import write_image
from .scenes import SCENES, Instance, draw_scenes

# Contours are traced on an enlarged mask, so that they run between the pixels
# and not through the middle of the outermost ones.
TRACE_SCALE = 4


def write_coco(root: Path, scenes: dict[str, int] = SCENES) -> None:
    """Draw the scenes of both splits and write images and annotations.

    Writes ``<split>/*.jpg`` and ``annotations/<split>.json`` for each split.
    The ``digit`` of an annotation is its position in scikit-learn's set.

    Args:
        root (Path): An empty directory.
        scenes (dict[str, int]): How many scenes to draw for each split.
    """
    (root / 'annotations').mkdir()
    for split in SPLITS:
        (root / split).mkdir()
        annotations = _draw_split(root / split, split, scenes[split])
        path = root / 'annotations' / f'{split}.json'
        path.write_text(json.dumps(annotations, separators=(',', ':')))


def _draw_split(folder: Path, split: str, count: int) -> dict:
    images, annotations = [], []
    for number, scene in enumerate(draw_scenes(split, count)):
        name = f'{number:04d}.jpg'
        write_image(folder / name, scene.image)
        height, width = scene.image.shape[:2]
        images.append(
            dict(id=number, file_name=name, width=width, height=height)
        )
        for instance in scene.instances:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    **_annotate(instance),
                )
            )
    categories = [
        dict(id=label + 1, name=name, supercategory='digit')
        for label, name in enumerate(CLASSES)
    ]
    return dict(
        info=dict(description=f'mmssm mini detection set, {split}'),
        images=images,
        annotations=annotations,
        categories=categories,
    )


def _annotate(instance: Instance) -> dict:
    rows, columns = np.nonzero(instance.mask)
    left, top = int(columns.min()), int(rows.min())
    right, bottom = int(columns.max()) + 1, int(rows.max()) + 1
    return dict(
        category_id=instance.label + 1,
        bbox=[left, top, right - left, bottom - top],
        area=int(instance.mask.sum()),
        iscrowd=0,
        segmentation=mask_to_polygons(instance.mask),
        digit=instance.index,
    )


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Trace a mask as COCO polygons, one for each connected part.

    COCO polygons cannot have holes. A part with holes becomes one polygon that
    enters each hole and leaves it again along the same line.

    Args:
        mask (np.ndarray): (H, W) bool.

    Returns:
        list[list[float]]: Each polygon as [x1, y1, x2, y2, ...] in pixels,
        the image's upper left corner being (0, 0).
    """
    enlarged = (
        mask.astype(np.uint8).repeat(TRACE_SCALE, 0).repeat(TRACE_SCALE, 1)
    )
    contours, hierarchy = cv2.findContours(
        enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    contours = [
        cv2.approxPolyDP(contour, TRACE_SCALE / 2, True)[:, 0]
        for contour in contours
    ]
    parents = hierarchy[0, :, 3]
    polygons = []
    for number in np.nonzero(parents < 0)[0]:
        polygon = contours[number]
        for hole in np.nonzero(parents == number)[0]:
            polygon = _cut_hole(polygon, contours[hole])
        points = (polygon + 0.5) / TRACE_SCALE
        if len(points) >= 3:
            polygons.append(points.round(1).ravel().tolist())
    return polygons


def _cut_hole(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Splice a hole into an outline where the two come closest."""
    distances = ((outline[:, None] - hole[None]) ** 2).sum(-1)
    at, start = np.unravel_index(distances.argmin(), distances.shape)
    loop = np.concatenate([hole[start:], hole[: start + 1]])
    return np.concatenate([outline[: at + 1], loop, outline[at:]])
