"""Draw annotations or predictions on images.

Small images are enlarged, and text has a minimum size.
"""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .palette import Color

MIN_SIDE = 640  # pixels of the longer side; smaller images are enlarged
MIN_WIDTH = 320  # pixels of a list below a picture
MIN_LETTERS = 14  # minimum height of letters, pixels
OPACITY = 0.5  # of a mask's color
LABEL_OPACITY = 0.6  # of a class's color in a label map
CHANGED = (240, 0, 160)  # a color that is rare in aerial images
PAIR_TITLES = ('before', 'after', 'changed')

# The color (or None), the name and the value of a line in a list.
Line = tuple[Color | None, str, str]


def draw_detections(
    image: np.ndarray,
    rows: list[dict],
    colors: list[Color],
    masks: np.ndarray | None,
    side: int | None = None,
) -> Image.Image:
    """Draw boxes with names and scores, and masks.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        rows (list[dict]): ``name`` and ``bbox`` (left, top, right, bottom,
            pixels) of each object, the best first. True objects have no
            ``score``.
        colors (list): RGB, 0 to 255, of each object.
        masks (np.ndarray | None): (N, H, W) bool.
        side (int, optional): The picture's longer side, pixels. Defaults to
            the image's own, enlarged if it is small.

    Returns:
        Image.Image: RGB.
    """
    canvas, scale = scale_image(image, side)
    order = range(len(rows))[::-1]  # draws the best on top
    if masks is not None:
        for i in order:
            _paint(canvas, masks[i], colors[i])
    picture = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(picture), find_font(_letters(picture))
    line = max(2, max(picture.size) // 320)
    boxes = [[scale * value for value in row['bbox']] for row in rows]
    for i in order:
        pen.rectangle(_ordered(boxes[i]), outline=colors[i], width=line)
    for i in order:
        text = rows[i]['name']
        if 'score' in rows[i]:
            text = f'{text}: {rows[i]["score"]:.2f}'
        _label(pen, *boxes[i][:2], text, colors[i], font, picture.size)
    return picture


def draw_segmentation(
    image: np.ndarray,
    labels: np.ndarray,
    palette: list[Color],
    side: int | None = None,
) -> Image.Image:
    """Draw the classes' colors over an image turned gray.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        labels (np.ndarray): (H, W) labels; pixels whose label is no class
            are not changed.
        palette (list): RGB, 0 to 255, by label.
        side (int, optional): As in :func:`draw_detections`.

    Returns:
        Image.Image: RGB.
    """
    canvas, _ = scale_image(image, side)
    # Nearest neighbor: labels cannot be interpolated.
    labels = cv2.resize(
        labels.astype(np.int32),
        canvas.shape[1::-1],
        interpolation=cv2.INTER_NEAREST,
    )
    known = labels < len(palette)
    # Gray, so that the image's own colors do not look like classes.
    gray = cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY)[known, None]
    colors = np.reshape(palette, (-1, 3))[labels[known]]
    mixed = (1 - LABEL_OPACITY) * gray + LABEL_OPACITY * colors
    canvas[known] = mixed.round().astype(np.uint8)
    return Image.fromarray(canvas)


def draw_segments(
    image: np.ndarray, ids: np.ndarray, rows: list[dict], colors: list[Color]
) -> Image.Image:
    """Draw segments in their classes' colors, with lines between them.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        ids (np.ndarray): (H, W), the number of each pixel's segment from 1,
            0 for none.
        rows (list[dict]): ``name`` and ``share`` of each segment.
        colors (list): RGB, 0 to 255, of each segment.

    Returns:
        Image.Image: RGB, with a list of the classes, their numbers of
        segments and their shares below.
    """
    numbers = np.where(ids > 0, ids.astype(np.int32) - 1, len(rows))
    picture = draw_segmentation(image, numbers, colors)
    canvas = np.array(picture)
    ids = cv2.resize(ids, picture.size, interpolation=cv2.INTER_NEAREST)
    shrunk, grown = (f(ids, np.ones((3, 3))) for f in (cv2.erode, cv2.dilate))
    canvas[shrunk != grown] = 255
    lines: dict[str, list] = {}
    for row, color in zip(rows, colors):
        line = lines.setdefault(row['name'], [color, 0, 0.0])
        line[1] += 1
        line[2] += row['share']
    return add_list(
        Image.fromarray(canvas),
        [
            (color, f'{name} ({count})', percent(share))
            for name, (color, count, share) in lines.items()
        ],
    )


def draw_changes(
    pair: np.ndarray,
    labels: np.ndarray,
    lines: list[Line],
    side: int | None = None,
) -> Image.Image:
    """Draw two images and what changed between them side by side.

    Args:
        pair (np.ndarray): (H, W, 6) uint8, RGB of the earlier image, then of
            the later one.
        labels (np.ndarray): (H, W), 0 where nothing changed. What changed is
            tinted and outlined in a copy of the later image.
        lines (list): What to list below, as in :func:`add_list`.
        side (int, optional): An image's longer side, as in
            :func:`draw_detections`.

    Returns:
        Image.Image: RGB, three images with titles above and the list below.
    """
    images = [
        scale_image(np.ascontiguousarray(image), side)[0]
        for image in (pair[..., :3], pair[..., 3:], pair[..., 3:])
    ]
    _paint(images[-1], labels != 0, CHANGED)
    height, width = images[0].shape[:2]
    gap = max(2, width // 80)
    font = find_font(max(MIN_LETTERS, width / 24))
    top = round(1.6 * font.size)
    sheet = Image.new('RGB', (3 * width + 2 * gap, top + height), 'white')
    pen = ImageDraw.Draw(sheet)
    for number, (image, title) in enumerate(zip(images, PAIR_TITLES)):
        left = number * (width + gap)
        sheet.paste(Image.fromarray(image), (left, top))
        middle = (left + width / 2, top / 2)
        title = shorten(title, width, font)
        pen.text(middle, title, 'black', font, 'mm')
    return add_list(sheet, lines, font=font)


def draw_classification(image: np.ndarray, rows: list[dict]) -> Image.Image:
    """List the best classes below an image.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        rows (list[dict]): ``name`` and ``score`` of each, the best first.

    Returns:
        Image.Image: RGB, enlarged if the image is small.
    """
    canvas, _ = scale_image(image)
    lines = [(None, row['name'], percent(row['score'])) for row in rows]
    return add_list(Image.fromarray(canvas), lines, columns=1)


def scale_image(
    image: np.ndarray, side: int | None = None
) -> tuple[np.ndarray, float]:
    """Copy an image to another size.

    Args:
        image (np.ndarray): (H, W, 3) uint8.
        side (int, optional): The longer side, pixels. Defaults to the
            image's own, but at least :data:`MIN_SIDE`.

    Returns:
        tuple[np.ndarray, float]: The copy, and its scale.
    """
    longer = max(image.shape[:2])
    scale = (side or max(longer, MIN_SIDE)) / longer
    if scale == 1:
        return image.copy(), 1
    height, width = (max(1, round(scale * n)) for n in image.shape[:2])
    kind = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.resize(image, (width, height), interpolation=kind), scale


def find_font(size: float) -> ImageFont.ImageFont:
    """The font of all pictures; a letter is about ``size`` pixels high."""
    return ImageFont.load_default(size)


def _letters(picture: Image.Image) -> float:
    return max(MIN_LETTERS, max(picture.size) / 42)


def _paint(canvas: np.ndarray, mask: np.ndarray, color: Color) -> None:
    """Tint a mask's pixels in place and outline them."""
    height, width = canvas.shape[:2]
    # Interpolation keeps enlarged outlines smooth.
    mask = cv2.resize(np.float32(mask), (width, height)) > 0.5
    tinted = canvas[mask] * (1 - OPACITY) + np.array(color) * OPACITY
    canvas[mask] = tinted.round().astype(np.uint8)
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    line = max(1, max(canvas.shape) // 640)
    cv2.drawContours(canvas, outlines, -1, color, line, cv2.LINE_AA)


def _ordered(box: list[float]) -> list[float]:
    """The box, without a negative width or height: Pillow refuses these."""
    left, top, right, bottom = box
    return [left, top, max(left, right), max(top, bottom)]


def _label(
    pen: ImageDraw.ImageDraw,
    left: float,
    top: float,
    text: str,
    color: Color,
    font: ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Write a label above a box, or in it if there is no room above."""
    width = pen.textlength(text, font=font) + font.size / 2
    height = 1.3 * font.size
    left = min(max(0, left), max(0, size[0] - width))
    top = top - height if top >= height else max(0, top)
    pen.rectangle([left, top, left + width, top + height], fill=color)
    pen.text(
        (left + font.size / 4, top + height / 2),
        text,
        fill='black' if _is_light(color) else 'white',
        font=font,
        anchor='lm',
    )


def _is_light(color: Color) -> bool:
    red, green, blue = color
    return 0.3 * red + 0.59 * green + 0.11 * blue > 128


def percent(share: float) -> str:
    """Format a share from 0 to 1 as a percentage."""
    return f'{share:.1%}' if share >= 0.001 else '<0.1%'


def add_list(
    picture: Image.Image,
    lines: list[Line],
    columns: int | None = None,
    font: ImageFont.ImageFont | None = None,
) -> Image.Image:
    """Add a list below a picture; a line has color, name and value.

    Args:
        picture (Image.Image): RGB.
        lines (list): Color (or None), name and value of each. Values may all
            be empty.
        columns (int, optional): Defaults to as many as fit.
        font (ImageFont.ImageFont, optional): Defaults to one whose size
            follows the picture's.

    Returns:
        Image.Image: The picture with the list.
    """
    width = max(picture.width, MIN_WIDTH)
    font = font or find_font(min(_letters(picture), width / 16))
    has_values = any(value for _, _, value in lines)
    space = font.getlength('100.0%') + font.size if has_values else 0
    if columns is None:
        longest = max(
            (font.getlength(name) for _, name, _ in lines), default=0
        )
        room = space + min(16 * font.size, longest + 4 * font.size)
        columns = min(len(lines), int(width // room))
    per_column = -(-len(lines) // max(1, columns))
    columns = -(-len(lines) // max(1, per_column))
    step = round(1.6 * font.size)
    height = picture.height + (per_column + 1) * step
    sheet = Image.new('RGB', (width, height), 'white')
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(sheet)
    for number, (color, name, value) in enumerate(lines):
        column, row = divmod(number, per_column)
        left = column * width / columns + font.size
        end = (column + 1) * width / columns
        middle = picture.height + (row + 1) * step
        if color is not None:
            half = font.size / 2
            swatch = [left, middle - half, left + 2 * half, middle + half]
            pen.rectangle(swatch, fill=color, outline='gray')
            left += 1.5 * font.size
        left += space
        pen.text((left - font.size, middle), value, 'black', font, 'rm')
        name = shorten(name, end - left, font)
        pen.text((left, middle), name, 'black', font, 'lm')
    return sheet


def shorten(text: str, space: float, font: ImageFont.ImageFont) -> str:
    """Cut a text short if it is more than ``space`` pixels wide."""
    if font.getlength(text) <= space:
        return text
    while text and font.getlength(f'{text}...') > space:
        text = text[:-1]
    return f'{text}...'
