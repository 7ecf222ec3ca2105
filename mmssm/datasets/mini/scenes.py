"""Scenes: several handwritten digits on textured ground."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from rich.progress import track

from .digits import SPLITS, DigitBank, load_digit_bank

SEED = 2024
SCENES = dict(train=600, test=150)
SCENE_SIZE = 160
DIGITS = (3, 6)  # at least, at most
GLYPH_SIZES = (36, 68)  # side of the digit's 8x8 field in the scene, pixels
PORTRAIT_SIZE = 48  # an image of one digit
PORTRAIT_GLYPH_SIZES = (30, 45)
PAPER_TINTS = (170.0, 235.0)  # darkest and lightest, in each color channel
MAX_SHIFT = 50.0  # to the paper's second tint
MAX_INK_TINT = 80.0
MAX_TILT = 8.0  # degrees
MAX_HIDDEN = 0.05  # largest share of a digit that another one may cover
PLACEMENT_TRIES = 20

_Drawn = TypeVar('_Drawn')


@dataclass
class Instance:
    """One digit in a scene.

    Attributes:
        label (int): The digit that was written, 0 to 9.
        index (int): Its position in scikit-learn's set.
        mask (np.ndarray): (H, W) bool, its visible pixels.
    """

    label: int
    index: int
    mask: np.ndarray


@dataclass
class Scene:
    """A drawn image and what is in it.

    Attributes:
        image (np.ndarray): (H, W, 3) uint8, blue-green-red.
        instances (list[Instance]): The digits, lowest layer first.
    """

    image: np.ndarray
    instances: list[Instance]


def draw_scenes(split: str, count: int) -> Iterator[Scene]:
    """Draw the first scenes of a split, the same ones for every dataset.

    Args:
        split (str): ``'train'`` or ``'test'``.
        count (int): How many.

    Yields:
        Scene: One after the other, under a progress bar.
    """
    yield from draw_all(draw_scene, split, count, 'scenes')


def draw_all(
    draw: Callable[[np.random.Generator, DigitBank], _Drawn],
    split: str,
    count: int,
    name: str,
) -> Iterator[_Drawn]:
    """Draw the first scenes or pairs of a split, under a progress bar.

    Args:
        draw (Callable): Draws one of them.
        split (str): ``'train'`` or ``'test'``.
        count (int): How many.
        name (str): Their name on the progress bar.
    """
    bank = load_digit_bank(split)
    for number in track(range(count), f'drawing {split} {name}'):
        # One generator for each, so that each is independent of the others.
        rng = np.random.default_rng([SEED, SPLITS.index(split), number])
        yield draw(rng, bank)


def draw_scene(rng: np.random.Generator, bank: DigitBank) -> Scene:
    """Draw one scene; the same generator state gives the same scene."""
    scene = Scene(draw_ground(rng), [])
    count = int(rng.integers(DIGITS[0], DIGITS[1] + 1))
    for position in rng.choice(len(bank), size=count, replace=False):
        glyph = draw_glyph(rng, bank.ink[position])
        below = [instance.mask for instance in scene.instances]
        corner = find_place(rng, below, glyph, SCENE_SIZE, MAX_HIDDEN)
        if corner is None:  # the scene is full
            continue
        mask = paint(scene.image, glyph, corner, draw_ink(rng))
        for hidden in below:
            hidden &= ~mask
        scene.instances.append(
            Instance(
                label=int(bank.labels[position]),
                index=int(bank.indices[position]),
                mask=mask,
            )
        )
    return scene


def draw_portrait(rng: np.random.Generator, ink: np.ndarray) -> np.ndarray:
    """Draw one digit in dark ink that fills most of a sheet of light paper.

    Args:
        rng (np.random.Generator): The same state gives the same image.
        ink (np.ndarray): (8, 8) float32, the digit, see :class:`DigitBank`.

    Returns:
        np.ndarray: (48, 48, 3) uint8, blue-green-red.
    """
    image = draw_ground(rng, PORTRAIT_SIZE)
    glyph = draw_glyph(rng, ink, PORTRAIT_GLYPH_SIZES)
    corner = tuple(
        int(rng.integers(0, PORTRAIT_SIZE - side + 1)) for side in glyph.shape
    )
    paint(image, glyph, corner, draw_ink(rng))
    return image


def draw_ground(
    rng: np.random.Generator, size: int = SCENE_SIZE
) -> np.ndarray:
    """Draw textured paper: clouds of two light tints, with grain.

    Returns:
        np.ndarray: (size, size, 3) uint8.
    """
    clouds = np.zeros((size, size), dtype=np.float32)
    for octave, cells in enumerate((3, 6, 12, 24)):
        noise = rng.random((cells, cells), dtype=np.float32)
        clouds += 0.6**octave * cv2.resize(
            noise, (size, size), interpolation=cv2.INTER_CUBIC
        )
    clouds = cv2.normalize(clouds, None, 0, 1, cv2.NORM_MINMAX)[..., None]
    tint = rng.uniform(*PAPER_TINTS, size=3).astype(np.float32)
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, size=3).astype(np.float32)
    other_tint = np.clip(tint + shift, 0, 255)
    ground = tint + (other_tint - tint) * clouds
    ground += 3 * rng.standard_normal((size, size, 1), dtype=np.float32)
    return np.clip(ground, 0, 255).astype(np.uint8)


def draw_glyph(
    rng: np.random.Generator,
    ink: np.ndarray,
    sizes: tuple[int, int] = GLYPH_SIZES,
) -> np.ndarray:
    """Enlarge an 8x8 digit smoothly, with a random size and tilt.

    Args:
        rng (np.random.Generator): Draws the size and the tilt.
        ink (np.ndarray): (8, 8) float32, the digit.
        sizes (tuple[int, int]): Least and largest side of its 8x8 field.

    Returns:
        np.ndarray: (h, w) float32 opacity in [0, 1], cropped to the digit.
    """
    side = int(rng.integers(sizes[0], sizes[1] + 1))
    tilt = rng.uniform(-MAX_TILT, MAX_TILT)
    center = (ink.shape[0] - 1) / 2
    transform = cv2.getRotationMatrix2D(
        (center, center), tilt, side / ink.shape[0]
    )
    transform[:, 2] += side / 2 - center
    grown = cv2.warpAffine(ink, transform, (side, side), flags=cv2.INTER_CUBIC)
    # Enlarging blurs an edge over a whole 8x8 cell: make it steeper, about
    # three pixels wide.
    steepness = side / ink.shape[0] / 3
    opacity = np.clip((grown - 0.45) * steepness + 0.5, 0, 1)
    rows, columns = np.nonzero(opacity)
    return opacity[
        rows.min() : rows.max() + 1, columns.min() : columns.max() + 1
    ]


def draw_ink(rng: np.random.Generator) -> np.ndarray:
    """Mix a dark ink, (3,) float32 from 0 to 255."""
    return rng.uniform(0, MAX_INK_TINT, size=3).astype(np.float32)


def find_place(
    rng: np.random.Generator,
    taken: list[np.ndarray],
    glyph: np.ndarray,
    size: int,
    max_hidden: float,
) -> tuple[int, int] | None:
    """Find a place for a glyph where it hides little of the others.

    Args:
        rng (np.random.Generator): Draws the places to try.
        taken (list[np.ndarray]): (size, size) bool, the masks of the glyphs
            that are there.
        glyph (np.ndarray): (h, w) float32, its opacity.
        size (int): Side of the scene, pixels.
        max_hidden (float): Share of another glyph that it may hide.

    Returns:
        tuple[int, int] | None: Row and column of its upper left corner; None
        if the scene is full.
    """
    solid = glyph > 0.5
    for _ in range(PLACEMENT_TRIES):
        row = int(rng.integers(0, size - glyph.shape[0] + 1))
        column = int(rng.integers(0, size - glyph.shape[1] + 1))
        window = np.s_[
            row : row + glyph.shape[0], column : column + glyph.shape[1]
        ]
        if all(
            (mask[window] & solid).sum() <= max_hidden * mask.sum()
            for mask in taken
        ):
            return row, column
    return None


def paint(
    image: np.ndarray,
    glyph: np.ndarray,
    corner: tuple[int, int],
    ink: np.ndarray,
) -> np.ndarray:
    """Write a glyph into an image and return the mask of its pixels."""
    opacity = np.zeros(image.shape[:2], dtype=np.float32)
    row, column = corner
    opacity[row : row + glyph.shape[0], column : column + glyph.shape[1]] = (
        glyph
    )
    blend = image + (ink - image) * opacity[..., None]
    image[:] = np.round(blend).astype(np.uint8)
    return opacity > 0.5
