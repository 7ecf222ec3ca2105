"""The names and colors of classes."""

import colorsys
from typing import NamedTuple

Color = tuple[int, int, int]  # RGB, 0 to 255


class Classes(NamedTuple):
    """Names and colors of the classes, in the order of the labels."""

    names: list[str]
    palette: list[Color]
    source: str  # where the names come from, for messages


def generate_palette(count: int) -> list[Color]:
    """Generate distinct colors, always the same ones."""
    golden = (5**0.5 - 1) / 2  # its multiples spread evenly over the hues
    rgb = (
        colorsys.hsv_to_rgb(i * golden % 1, 0.55 + 0.4 * (i % 2), 0.95)
        for i in range(count)
    )
    return [tuple(round(255 * value) for value in color) for color in rgb]
