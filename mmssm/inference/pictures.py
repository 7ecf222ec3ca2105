"""Pictures of predictions that are legible at any size of the image."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_SIDE = 640  # smaller images are enlarged until their longer side has it
MIN_WIDTH = 320  # of a list below a picture
OPACITY = 0.5

_Colour = tuple[int, int, int]


def draw_detections(
    image: np.ndarray,
    rows: list[dict],
    colours: list[_Colour],
    masks: np.ndarray | None,
) -> Image.Image:
    """Draw boxes with names and scores, and masks.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        rows (list[dict]): ``name``, ``score`` and ``bbox`` (left, top, right,
            bottom, pixels) of each detection, the best first.
        colours (list): RGB, 0 to 255, of each detection.
        masks (np.ndarray | None): (N, H, W) bool.

    Returns:
        Image.Image: RGB, enlarged if the image is small.
    """
    canvas, scale = _enlarge(image)
    order = range(len(rows))[::-1]  # the best ends up on top
    if masks is not None:
        for i in order:
            _paint(canvas, masks[i], colours[i])
    picture = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(picture), _font(picture)
    line = max(2, max(picture.size) // 320)
    for i in order:
        box = [scale * value for value in rows[i]['bbox']]
        pen.rectangle(_ordered(box), outline=colours[i], width=line)
    for i in order:
        text = f'{rows[i]["name"]}: {rows[i]["score"]:.2f}'
        left, top = (scale * value for value in rows[i]['bbox'][:2])
        _label(pen, left, top, text, colours[i], font, picture.size)
    return picture


def draw_segmentation(
    image: np.ndarray,
    labels: np.ndarray,
    rows: list[dict],
    palette: list[_Colour],
) -> Image.Image:
    """Lay the classes' colours over an image, with a legend below.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        labels (np.ndarray): (H, W) labels.
        rows (list[dict]): ``label``, ``name`` and ``share`` of the classes
            present.
        palette (list): RGB, 0 to 255, by label.

    Returns:
        Image.Image: RGB, enlarged if the image is small.
    """
    canvas, _ = _enlarge(image)
    size = canvas.shape[1::-1]
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    colours = np.array(palette, dtype=np.uint8)[labels]
    canvas = cv2.addWeighted(canvas, 1 - OPACITY, colours, OPACITY, 0)
    lines = [
        (palette[row['label']], row['name'], _percent(row['share']))
        for row in rows
    ]
    return _with_list(Image.fromarray(canvas), lines)


def draw_classification(image: np.ndarray, rows: list[dict]) -> Image.Image:
    """List the best classes below an image.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        rows (list[dict]): ``name`` and ``score`` of each, the best first.

    Returns:
        Image.Image: RGB, enlarged if the image is small.
    """
    canvas, _ = _enlarge(image)
    lines = [(None, row['name'], _percent(row['score'])) for row in rows]
    return _with_list(Image.fromarray(canvas), lines, columns=1)


def _enlarge(image: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of the image, not smaller than is good to look at."""
    scale = max(1, MIN_SIDE / max(image.shape[:2]))
    if scale == 1:
        return image.copy(), 1
    height, width = (max(1, round(scale * n)) for n in image.shape[:2])
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_CUBIC
    ), scale


def _font(picture: Image.Image) -> ImageFont.ImageFont:
    return ImageFont.load_default(max(picture.size) / 42)


def _paint(canvas: np.ndarray, mask: np.ndarray, colour: _Colour) -> None:
    """Tint a mask's pixels in place and outline them."""
    height, width = canvas.shape[:2]
    # Interpolation keeps enlarged outlines smooth.
    mask = cv2.resize(np.float32(mask), (width, height)) > 0.5
    tinted = canvas[mask] * (1 - OPACITY) + np.array(colour) * OPACITY
    canvas[mask] = tinted.round().astype(np.uint8)
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    line = max(1, max(canvas.shape) // 640)
    cv2.drawContours(canvas, outlines, -1, colour, line, cv2.LINE_AA)


def _ordered(box: list[float]) -> list[float]:
    """The box with at least no negative size, as Pillow demands."""
    left, top, right, bottom = box
    return [left, top, max(left, right), max(top, bottom)]


def _label(
    pen: ImageDraw.ImageDraw,
    left: float,
    top: float,
    text: str,
    colour: _Colour,
    font: ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Write on a ground of a colour: above a box, else at its upper edge."""
    width = pen.textlength(text, font=font) + font.size / 2
    height = 1.3 * font.size
    left = min(max(0, left), max(0, size[0] - width))
    top = top - height if top >= height else max(0, top)
    pen.rectangle([left, top, left + width, top + height], fill=colour)
    pen.text(
        (left + font.size / 4, top + height / 2),
        text,
        fill='black' if _is_light(colour) else 'white',
        font=font,
        anchor='lm',
    )


def _is_light(colour: _Colour) -> bool:
    red, green, blue = colour
    return 0.3 * red + 0.59 * green + 0.11 * blue > 128


def _percent(share: float) -> str:
    return f'{share:.1%}' if share >= 0.001 else '<0.1%'


def _with_list(
    picture: Image.Image,
    lines: list[tuple[_Colour | None, str, str]],
    columns: int | None = None,
) -> Image.Image:
    """Put lines of a colour, a name and a value below a picture.

    Args:
        picture (Image.Image): RGB.
        lines (list): Colour (or None), name and value of each.
        columns (int, optional): Defaults to as many as have room.

    Returns:
        Image.Image: The picture with the list.
    """
    font = _font(picture)
    width = max(picture.width, MIN_WIDTH)
    if columns is None:
        columns = min(len(lines), max(1, int(width // (16 * font.size))))
    per_column = -(-len(lines) // columns)
    step = round(1.6 * font.size)
    height = picture.height + (per_column + 1) * step
    sheet = Image.new('RGB', (width, height), 'white')
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(sheet)
    for number, (colour, name, value) in enumerate(lines):
        column, row = divmod(number, per_column)
        left = column * width / columns + font.size
        end = (column + 1) * width / columns
        middle = picture.height + (row + 1) * step
        if colour is not None:
            half = font.size / 2
            swatch = [left, middle - half, left + 2 * half, middle + half]
            pen.rectangle(swatch, fill=colour, outline='grey')
            left += 1.5 * font.size
        left += pen.textlength('100.0%', font=font)
        pen.text((left, middle), value, 'black', font, 'rm')
        left += font.size
        name = _shorten(name, end - left, pen, font)
        pen.text((left, middle), name, 'black', font, 'lm')
    return sheet


def _shorten(
    text: str,
    space: float,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont,
) -> str:
    if pen.textlength(text, font=font) <= space:
        return text
    while text and pen.textlength(f'{text}...', font=font) > space:
        text = text[:-1]
    return f'{text}...'
