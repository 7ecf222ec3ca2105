"""Arrange pictures on a sheet, with titles or captions."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mmssm.utils import ConfigError, UserError, atomic_write

from .palette import Color
from .pictures import add_list, find_font

FORMATS = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG'}
TILE = 440  # longer side of a picture of a group, pixels
THUMBNAIL = 212  # longer side of a picture over a caption
TILES_PER_ROW = 4
THUMBNAILS_PER_ROW = 8
TITLES = ('ground truth', 'prediction')
TITLE_HEIGHT = 40
LINE_HEIGHT = 32  # of captions and legends
GAP = 6  # pixels between pictures of a group; three times that between groups


@dataclass
class Thumbnail:
    """A picture and what to write below it.

    Attributes:
        picture (Image.Image): At most :data:`THUMBNAIL` pixels wide and high.
        caption (tuple[str, ...]): The parts of the caption. They are written
            on one line, or on a line each if a thumbnail's caption is longer.
        color (Color): The color of the caption.
    """

    picture: Image.Image
    caption: tuple[str, ...]
    color: Color


def tile_groups(
    groups: list[tuple[Image.Image, ...]], titles: tuple[str, ...] = TITLES
) -> Image.Image:
    """Arrange groups of pictures in rows, under titles.

    Args:
        groups (list[tuple[Image.Image, ...]]): At least one; pictures are at
            most :data:`TILE` pixels wide and high.
        titles (tuple[str, ...]): Titles of a group's pictures, at most
            :data:`TILES_PER_ROW`. By default truth and prediction.
    """
    columns = min(TILES_PER_ROW // len(titles), len(groups))
    rows = -(-len(groups) // columns)
    group_width = len(titles) * (TILE + GAP) - GAP
    sheet = _blank(
        columns * (group_width + 3 * GAP) - GAP,
        TITLE_HEIGHT + rows * (TILE + GAP),
    )
    pen = ImageDraw.Draw(sheet)
    for number, group in enumerate(groups):
        row, column = divmod(number, columns)
        top = TITLE_HEIGHT + row * (TILE + GAP)
        for place, (picture, title) in enumerate(zip(group, titles)):
            left = GAP + column * (group_width + 3 * GAP)
            left += place * (TILE + GAP)
            _paste(sheet, picture, left, top, TILE)
            if row == 0:
                pen.text(
                    (left + TILE / 2, TITLE_HEIGHT / 2),
                    title,
                    fill='black',
                    font=_font(TITLE_HEIGHT),
                    anchor='mm',
                )
    return sheet


def tile_thumbnails(thumbnails: list[Thumbnail], title: str) -> Image.Image:
    """Arrange captioned pictures in rows, under a title.

    Args:
        thumbnails (list[Thumbnail]): At least one.
        title (str): A long title makes the sheet wider.
    """
    font = caption_font()
    captions = _break_lines(thumbnails, font)
    columns = min(THUMBNAILS_PER_ROW, len(thumbnails))
    rows = -(-len(thumbnails) // columns)
    lines = max(len(caption) for caption in captions)
    step = THUMBNAIL + 2 * GAP
    row_height = THUMBNAIL + lines * LINE_HEIGHT + GAP
    title_width = round(_font(TITLE_HEIGHT).getlength(title)) + 2 * GAP
    sheet = _blank(
        max(columns * step, title_width), TITLE_HEIGHT + rows * row_height
    )
    pen = ImageDraw.Draw(sheet)
    pen.text(
        (sheet.width / 2, TITLE_HEIGHT / 2),
        title,
        fill='black',
        font=_font(TITLE_HEIGHT),
        anchor='mm',
    )
    for number, (thumbnail, caption) in enumerate(zip(thumbnails, captions)):
        row, column = divmod(number, columns)
        left, top = GAP + column * step, TITLE_HEIGHT + row * row_height
        _paste(sheet, thumbnail.picture, left, top, THUMBNAIL)
        for line, text in enumerate(caption):
            pen.text(
                (
                    left + THUMBNAIL / 2,
                    top + THUMBNAIL + (line + 0.5) * LINE_HEIGHT,
                ),
                text,
                fill=thumbnail.color,
                font=font,
                anchor='mm',
            )
    return sheet


def add_legend(sheet: Image.Image, colors: dict[str, Color]) -> Image.Image:
    """Add a legend of colors below a sheet.

    Args:
        sheet (Image.Image): The legend gets the same width.
        colors (dict[str, Color]): Colors by name, in the legend's order.
    """
    lines = [(color, name, '') for name, color in colors.items()]
    return add_list(sheet, lines, font=_font(LINE_HEIGHT))


def caption_font() -> ImageFont.FreeTypeFont:
    """The font of captions."""
    return _font(LINE_HEIGHT)


def _break_lines(
    thumbnails: list[Thumbnail], font: ImageFont.FreeTypeFont
) -> list[list[str]]:
    """Break the captions into lines, one for each part if necessary."""
    captions = [[', '.join(item.caption)] for item in thumbnails]
    if all(font.getlength(text) <= THUMBNAIL for (text,) in captions):
        return captions
    return [list(item.caption) for item in thumbnails]


def _font(line_height: int) -> ImageFont.FreeTypeFont:
    return find_font(line_height * 0.6)


def _blank(width: int, height: int) -> Image.Image:
    return Image.new('RGB', (width, height), 'white')


def _paste(
    sheet: Image.Image, picture: Image.Image, left: int, top: int, side: int
) -> None:
    """Put a picture into the middle of its square tile."""
    sheet.paste(
        picture,
        (
            left + (side - picture.width) // 2,
            top + (side - picture.height) // 2,
        ),
    )


def check_sheet_file(out: str | Path, num: int | None) -> Path:
    """Refuse a file for a sheet that cannot be written, before it is drawn.

    Args:
        out (str | Path): The option ``--out``.
        num (int | None): The option ``--num``, of images.

    Returns:
        Path: The file.

    Raises:
        UserError: ``num`` is not positive, or ``out`` has another suffix or
            is a folder.
    """
    out = Path(out)
    if num is not None and num < 1:
        raise UserError(f'--num {num}: at least 1 image must be drawn')
    if out.suffix.lower() not in FORMATS:
        raise UserError(f'cannot write {out}: name it .png or .jpg')
    if out.is_dir():
        raise ConfigError(f'--out {out} is a folder; name a picture')
    return out


def write_sheet(sheet: Image.Image, out: Path) -> None:
    """Write a picture whole or not at all."""
    with atomic_write(out) as file:
        # PNG ignores the quality; JPEG's default blurs text.
        sheet.save(file, format=FORMATS[out.suffix.lower()], quality=92)
