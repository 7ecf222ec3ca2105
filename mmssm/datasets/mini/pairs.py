"""Pairs: a sheet of digits before and after some of them changed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .digits import DigitBank
from .scenes import (
    PAPER_TINTS,
    draw_all,
    draw_glyph,
    draw_ground,
    draw_ink,
    find_place,
    paint,
)

PAIRS = dict(train=320, test=80)
PAIR_SIZE = 96
DIGITS = (3, 6)  # at least, at most
GLYPH_SIZES = (28, 44)  # side of the digit's 8x8 field, pixels
# What happens to a digit, with probabilities.
FATES = dict(stays=0.55, vanishes=0.16, appears=0.16, moves=0.13)
MAX_FADE = 0.6  # largest share of darkness that ink loses in one picture

# The light of each of the two pictures.
EXPOSURES = (0.6, 1.1)
MAX_CAST = 0.12  # largest change of a color channel's brightness
MAX_SLOPE = 0.25  # largest share of light that the sides gain or lose
SHADOWS = (0.25, 0.7)  # share of light in the middle of a shadow
SHADOW_SIZES = (12.0, 26.0)  # pixels
MAX_SHADOWS = 2  # in each picture
GRAIN = (2.0, 5.0)  # standard deviation

# For each place of a digit, the pictures that show it.
_SHOWN = dict(
    stays=[('before', 'after')],
    vanishes=[('before',)],
    appears=[('after',)],
    moves=[('before',), ('after',)],
)


@dataclass
class Pair:
    """Two pictures of one sheet.

    Attributes:
        before (np.ndarray): (H, W, 3) uint8, blue-green-red.
        after (np.ndarray): Likewise.
        changed (np.ndarray): (H, W) bool, the pixels of digits that are in
            only one of the two pictures.
    """

    before: np.ndarray
    after: np.ndarray
    changed: np.ndarray


def draw_pairs(split: str, count: int) -> Iterator[Pair]:
    """Draw the first pairs of a split.

    Args:
        split (str): ``'train'`` or ``'test'``.
        count (int): How many.

    Yields:
        Pair: One after the other, under a progress bar.
    """
    yield from draw_all(draw_pair, split, count, 'pairs')


def draw_pair(rng: np.random.Generator, bank: DigitBank) -> Pair:
    """Draw one pair; the same generator state gives the same pair.

    Digits stay, vanish, appear or move to a free place. Ink fades in one of
    the pictures, and the two pictures have different light. So all pixels
    differ, and the difference alone does not show what changed.
    """
    sheets = dict(before=draw_ground(rng, PAIR_SIZE))
    sheets['after'] = sheets['before'].copy()
    changed = np.zeros((PAIR_SIZE, PAIR_SIZE), dtype=bool)
    taken: list[np.ndarray] = []
    count = int(rng.integers(DIGITS[0], DIGITS[1] + 1))
    for position in rng.choice(len(bank), size=count, replace=False):
        glyph = draw_glyph(rng, bank.ink[position], GLYPH_SIZES)
        inks = _draw_inks(rng)
        fate = rng.choice(list(FATES), p=list(FATES.values()))
        for shown in _SHOWN[fate]:
            corner = find_place(rng, taken, glyph, PAIR_SIZE, max_hidden=0)
            if corner is None:  # no room is left
                break
            for name in shown:
                mask = paint(sheets[name], glyph, corner, inks[name])
            taken.append(mask)
            if fate != 'stays':
                changed |= mask
    return Pair(
        before=take_picture(rng, sheets['before']),
        after=take_picture(rng, sheets['after']),
        changed=changed,
    )


def _draw_inks(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the ink of a digit for both pictures; it is faded in one."""
    ink = draw_ink(rng)
    faded = ink + rng.uniform(0, MAX_FADE) * (PAPER_TINTS[0] - ink)
    inks = [ink, faded] if rng.random() < 0.5 else [faded, ink]
    return dict(zip(('before', 'after'), inks))


def take_picture(rng: np.random.Generator, sheet: np.ndarray) -> np.ndarray:
    """Draw a picture of a sheet in random light.

    The light has a strength, a cast, a slope over the sheet and up to two
    soft shadows; the picture has grain.

    Args:
        rng (np.random.Generator): The same state gives the same light.
        sheet (np.ndarray): (H, W, 3) uint8.

    Returns:
        np.ndarray: (H, W, 3) uint8.
    """
    size = sheet.shape[0]
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across = (np.cos(angle) * columns + np.sin(angle) * rows) / size
    light = 1 + rng.uniform(0, MAX_SLOPE) * 2 * (across - across.mean())
    for _ in range(rng.integers(0, MAX_SHADOWS + 1)):
        row, column = rng.uniform(0, size, size=2)
        width, length = rng.uniform(*SHADOW_SIZES, size=2)
        distance = ((rows - row) / width) ** 2 + (
            (columns - column) / length
        ) ** 2
        depth = 1 - rng.uniform(*SHADOWS)
        # Its edge is steeper than that of a Gaussian, like a real shadow.
        light *= 1 - depth / (1 + distance**3)
    cast = rng.uniform(1 - MAX_CAST, 1 + MAX_CAST, size=3)
    picture = sheet * light[..., None] * cast * rng.uniform(*EXPOSURES)
    picture += rng.uniform(*GRAIN) * rng.standard_normal((size, size, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)
