import numpy as np
import pytest
from PIL import Image

from mmssm.visualization.pictures import (
    CHANGED,
    LABEL_OPACITY,
    MIN_SIDE,
    OPACITY,
    add_list,
    draw_changes,
    draw_detections,
    draw_segmentation,
    find_font,
    scale_image,
    shorten,
)

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def grey_image(height=100, width=200, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.mark.parametrize('shape', [(20, 40), (40, 20), (3000, 1500), (1, 99)])
def test_scaling_fits_the_longer_side(shape):
    scaled, scale = scale_image(grey_image(*shape), 100)
    expected = [max(1, round(100 / max(shape) * n)) for n in shape]
    assert scaled.shape == (*expected, 3)
    assert scale == 100 / max(shape)
    assert (scaled == 100).all()


def test_small_images_only_are_enlarged():
    small, scale = scale_image(grey_image(10, 20))
    assert small.shape[:2] == (MIN_SIDE // 2, MIN_SIDE)
    assert scale == MIN_SIDE / 20
    image = grey_image(MIN_SIDE + 1, 9)
    same, scale = scale_image(image)
    assert (same == image).all() and same is not image and scale == 1


def test_detections_with_and_without_scores():
    image = grey_image()
    mask = np.zeros((1, 100, 200), dtype=bool)
    mask[0, 40:80, 50:150] = True
    rows = [dict(name='fox', bbox=[50, 40, 150, 80])]
    true = np.array(draw_detections(image, rows, [RED], mask, 400))
    assert true.shape == (200, 400, 3)
    inside = (1 - OPACITY) * 100 + OPACITY * np.array(RED)
    assert (true[100:140, 120:280] == inside).all()
    assert (true[:40] == 100).all() and (true[170:] == 100).all()
    # The ground of the name, in the box's color, widens with the score.
    rows[0]['score'] = 0.9
    found = np.array(draw_detections(image, rows, [RED], mask, 400))
    name = slice(62, 78), slice(100, 400)
    widths = [(p[name] == RED).all(-1).any(0).sum() for p in (true, found)]
    assert 0 < widths[0] < widths[1] - 20
    without = np.array(draw_detections(image, rows, [RED], None, 400))
    assert (without[100:140, 120:280] == 100).all()


def test_best_detection_is_on_top():
    rows = [dict(name='a', bbox=[10, 10, 90, 90])] * 2
    picture = np.array(
        draw_detections(grey_image(100, 100), rows, [RED, BLUE], None, 100)
    )
    assert (picture[50, 10] == RED).all()


def test_segmentation_is_over_grey():
    image = grey_image()
    image[:] = (255, 0, 0)  # its gray is 76
    labels = np.zeros((100, 200), dtype=np.uint8)
    labels[:, 100:] = 1
    labels[50:] = 255
    picture = np.array(draw_segmentation(image, labels, [GREEN, BLUE], 200))
    for part, color in (
        (picture[:50, :100], GREEN),
        (picture[:50, 100:], BLUE),
    ):
        mixed = (1 - LABEL_OPACITY) * 76 + LABEL_OPACITY * np.array(color)
        assert (part == mixed.round()).all()
    assert (picture[50:] == (255, 0, 0)).all()  # ignored


def test_changes_are_marked_in_a_third_picture():
    pair = np.zeros((50, 100, 6), dtype=np.uint8)
    pair[..., :3], pair[..., 3:] = RED, GREEN
    labels = np.zeros((50, 100), dtype=np.uint8)
    labels[10:40, 20:60] = 1
    sheet = np.array(draw_changes(pair, labels, [(BLUE, 'new', '24%')], 200))
    top = (sheet[:, 100] == RED).all(-1).argmax()
    before, after, marked = (
        sheet[top : top + 100, start : start + 200]
        for start in (0, (sheet.shape[1] - 200) // 2, sheet.shape[1] - 200)
    )
    assert (before == RED).all() and (after == GREEN).all()
    tinted = (1 - OPACITY) * np.array(GREEN) + OPACITY * np.array(CHANGED)
    assert (abs(marked[25:75, 45:115] - tinted) <= 1).all()
    assert (marked[:16] == GREEN).all() and (marked[:, 125:] == GREEN).all()
    for start in (0, 204, 408):  # titles
        assert (sheet[:top, start : start + 200] < 100).any()
    assert (sheet[top + 100 :] == BLUE).all(-1).sum() > 100
    unchanged = np.array(draw_changes(pair, labels * 0, [], 200))
    assert (unchanged[top : top + 100, -200:] == GREEN).all()


def test_list_keeps_the_picture_and_wraps():
    picture = Image.new('RGB', (800, 50), (1, 2, 3))
    lines = [((n, 0, 99), f'class {n}', '') for n in range(30)]
    sheet = np.array(add_list(picture, lines, font=find_font(20)))
    assert (sheet[:50] == (1, 2, 3)).all()
    below = sheet[50:]
    swatches = [(below == color).all(-1) for color, _, _ in lines]
    assert all(300 < swatch.sum() < 500 for swatch in swatches)
    tops = {swatch.any(1).argmax() for swatch in swatches}
    assert 1 < len(tops) < len(lines)
    assert (below[:, -5:] == 255).all()  # no name runs over the edge
    values = [(color, name, '50.0%') for color, name, _ in lines]
    wider = np.array(add_list(picture, values, font=find_font(20)))
    assert wider.shape[0] > sheet.shape[0]


def test_long_names_are_shortened():
    font = find_font(20)
    assert shorten('fox', 500, font) == 'fox'
    short = shorten('great white shark', 100, font)
    assert short.endswith('...') and short.startswith('gre')
    assert font.getlength(short) <= 100
    sheet = add_list(Image.new('RGB', (320, 9)), [(None, 'x' * 999, '1%')])
    assert sheet.width == 320
