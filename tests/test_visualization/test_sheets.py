import numpy as np
import pytest
from PIL import Image

from mmssm.visualization.sheets import (
    GAP,
    LINE_HEIGHT,
    THUMBNAIL,
    TILE,
    TITLE_HEIGHT,
    Thumbnail,
    add_legend,
    tile_groups,
    tile_thumbnails,
)

INK = (9, 99, 9)


def test_every_pair_has_a_place():
    pairs = [
        (
            Image.new('RGB', (TILE, TILE), (value, 0, 0)),
            Image.new('RGB', (TILE, TILE // 2), (0, value, 0)),
        )
        for value in (50, 100, 150)
    ]
    picture = np.array(tile_groups(pairs))
    assert picture.shape[0] == TITLE_HEIGHT + 2 * (TILE + GAP)
    for value in (50, 100, 150):
        assert (picture == (value, 0, 0)).all(-1).sum() == TILE**2
        assert (picture == (0, value, 0)).all(-1).sum() == TILE**2 // 2
    # Titles above the two pairs of the first row.
    assert (picture[:TITLE_HEIGHT] < 100).any()


def test_groups_of_four_stand_one_below_the_other():
    titles = ('one', 'two', 'three', 'four')
    groups = [
        tuple(
            Image.new('RGB', (TILE, TILE), (value + place, 0, 0))
            for place in range(4)
        )
        for value in (50, 60)
    ]
    picture = np.array(tile_groups(groups, titles))
    for row, value in enumerate((50, 60)):
        for place in range(4):
            top = TITLE_HEIGHT + row * (TILE + GAP)
            left = GAP + place * (TILE + GAP)
            tile = picture[top : top + TILE, left : left + TILE]
            assert (tile == (value + place, 0, 0)).all()
    for place in range(4):
        left = GAP + place * (TILE + GAP)
        title = picture[:TITLE_HEIGHT, left : left + TILE]
        assert (title < 100).any()


def test_one_pair_fills_one_column():
    tile = Image.new('RGB', (TILE, TILE))
    assert tile_groups([(tile, tile)]).width < 3 * TILE


def thumbnails(count, caption=('a',)):
    pictures = [
        Image.new('RGB', (THUMBNAIL, THUMBNAIL // 2), (100 + number, 0, 0))
        for number in range(count)
    ]
    return [Thumbnail(picture, caption, INK) for picture in pictures]


@pytest.mark.parametrize('count', [1, 8, 9])
def test_every_thumbnail_has_a_place(count):
    picture = np.array(tile_thumbnails(thumbnails(count), 'a title'))
    for number in range(count):
        found = (picture == (100 + number, 0, 0)).all(-1)
        assert found.sum() == THUMBNAIL**2 // 2
    assert (picture[:TITLE_HEIGHT] < 100).any()


def test_long_captions_take_two_lines():
    short = tile_thumbnails(thumbnails(1, ('one', 'two')), '')
    long = tile_thumbnails(thumbnails(1, ('one' * 5, 'two' * 5)), '')
    assert long.height == short.height + LINE_HEIGHT
    ink = (np.array(long) == INK).all(-1)
    assert ink[-2 * LINE_HEIGHT : -LINE_HEIGHT].any()
    assert ink[-LINE_HEIGHT:].any()


def test_title_is_never_cut():
    title = 'a title that is wider than a thumbnail'
    ink = np.array(tile_thumbnails(thumbnails(1), title))[:TITLE_HEIGHT] < 255
    assert not ink[:, :GAP].any()
    assert not ink[:, -GAP:].any()


def test_legend_is_legible_and_keeps_the_sheet():
    sheet = Image.new('RGB', (2 * TILE, 50), (1, 2, 3))
    colors = {f'class {number}': (number, 0, 99) for number in range(20)}
    picture = np.array(add_legend(sheet, colors))
    assert (picture[:50] == (1, 2, 3)).all()
    assert 2 * LINE_HEIGHT < len(picture) - 50 < 20 * LINE_HEIGHT
    for color in colors.values():
        assert (picture[50:] == color).all(-1).sum() > 300
