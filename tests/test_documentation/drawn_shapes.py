"""Small sets of drawn shapes, with the names and ids of real folders.

File names have spaces, dots, umlauts and suffixes in capitals;
ids of images and categories leave gaps and do not start at 1; some images have
no object.
"""

import json
from pathlib import Path

import cv2
import numpy as np

NAMES = ('ball', 'box', 'star')
CATEGORY_IDS = (3, 7, 20)
FILES = ('Größe 1.5.JPG', 'a b.c.png', 'sub folder/Überblick.jpeg', '#4.PNG')


def draw_scene(
    rng: np.random.Generator, size: tuple[int, int], count: int
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw shapes that do not overlap.

    Args:
        rng (np.random.Generator): The source of places, sizes and colors.
        size (tuple[int, int]): Height and width, pixels.
        count (int): How many shapes; fewer where there is no room.

    Returns:
        tuple: The image, (H, W, 3) uint8, and of each shape the label and the
        polygon, (P, 2) int32 x and y.
    """
    height, width = size
    ground = rng.integers(150, 230, 3)
    noise = rng.normal(0, 8, (height, width, 3))
    image = np.clip(ground + noise, 0, 255).astype(np.uint8)
    taken = np.zeros(size, bool)
    shapes = []
    for _ in range(count):
        label = int(rng.integers(len(NAMES)))
        radius = rng.uniform(0.1, 0.22) * min(size)
        center = rng.uniform(radius + 1, [width - radius, height - radius])
        polygon = _outline(label, center, radius, rng.uniform(0, 2 * np.pi))
        mask = np.zeros(size, np.uint8)
        cv2.fillPoly(mask, [polygon], 1)
        if (taken & (mask > 0)).any():
            continue
        taken |= cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 0
        color = rng.integers(0, 120, 3)
        cv2.fillPoly(image, [polygon], color.tolist(), cv2.LINE_AA)
        shapes.append((label, polygon))
    return image, shapes


def _outline(
    label: int, center: np.ndarray, radius: float, turn: float
) -> np.ndarray:
    corners = (24, 4, 10)[label]
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    reach = np.full(corners, radius)
    if NAMES[label] == 'star':
        reach[1::2] *= 0.45
    offset = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None]
    return np.round(center + offset).astype(np.int32)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image; OpenCV cannot open every name by itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    path.write_bytes(cv2.imencode(suffix, image)[1].tobytes())


def write_coco_set(
    root: Path,
    split: str,
    count: int,
    seed: int,
    sizes: tuple[tuple[int, int], ...] = ((120, 100), (96, 128)),
) -> None:
    """Write ``<split>/`` and ``annotations/<split>.json``.

    Every fourth image has no object.
    """
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(count):
        size = sizes[number % len(sizes)]
        objects = 0 if number % 4 == 3 else 4
        image, shapes = draw_scene(rng, size, objects)
        name = _file_name(number)
        write_image(root / split / name, image)
        image_id = 7 + 13 * number
        images.append(
            dict(id=image_id, file_name=name, height=size[0], width=size[1])
        )
        for label, polygon in shapes:
            left, top, width, height = cv2.boundingRect(polygon)
            annotations.append(
                dict(
                    id=100 + 3 * len(annotations),
                    image_id=image_id,
                    category_id=CATEGORY_IDS[label],
                    bbox=[left, top, width, height],
                    area=float(cv2.contourArea(polygon)),
                    segmentation=[polygon.ravel().tolist()],
                    iscrowd=0,
                )
            )
    categories = [
        dict(id=i, name=name) for i, name in zip(CATEGORY_IDS, NAMES)
    ]
    record = dict(
        images=images, annotations=annotations, categories=categories
    )
    path = root / 'annotations' / f'{split}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def _file_name(number: int) -> str:
    """The awkward names first, then plain ones."""
    if number < len(FILES):
        return FILES[number]
    return f'{number:04}.jpg'


def write_class_folders(root: Path, split: str, count: int, seed: int) -> None:
    """Write ``<split>/<class>/``, with ``count`` images of each class."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(NAMES):
        for number in range(count):
            image = rng.integers(150, 230, (64, 80, 3)).astype(np.uint8)
            turn = rng.uniform(0, 2 * np.pi)
            polygon = _outline(label, np.array([40, 32]), 24.0, turn)
            cv2.fillPoly(image, [polygon], rng.integers(0, 120, 3).tolist())
            file = _file_name(number + label * count)
            write_image(root / split / name / file, image)


def write_label_maps(root: Path, split: str, count: int, seed: int) -> None:
    """Write ``images/<split>/`` and ``masks/<split>/``; 0 is the ground."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        image, shapes = draw_scene(rng, (96, 128), 4)
        labels = np.zeros(image.shape[:2], np.uint8)
        for label, polygon in shapes:
            cv2.fillPoly(labels, [polygon], 1 + label)
        name = Path(_file_name(number)).with_suffix('.jpg')
        write_image(root / 'images' / split / name, image)
        write_image(root / 'masks' / split / name.with_suffix('.png'), labels)
