"""What a picture of routes shows."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from mmssm.scans import (
    CROSS,
    FLIP,
    HILBERT,
    HILBERT_SHIFT,
    parse_routes,
    route_indices,
    structural_distortion,
)
from mmssm.scans.tree import tree_parents
from mmssm.visualization.routes import (
    DEFAULT_ROUTES,
    PANELS_PER_ROW,
    draw_routes,
    route_figure,
)


def panels(figure):
    """The axes of routes, which unlike the scale of colors have titles."""
    return {
        axis.get_title(loc='left'): axis
        for axis in figure.axes
        if axis.get_title(loc='left')
    }


def drawn_lines(axis):
    """Thin and thick lines, as {kind: (segments, steps)}."""
    thin, thick = [c for c in axis.collections if type(c) is LineCollection]
    assert thin.get_linewidth()[0] < thick.get_linewidth()[0]
    return {
        kind: (np.reshape(lines.get_segments(), (-1, 2, 2)), lines.get_array())
        for kind, lines in (('jumps', thin), ('steps', thick))
    }


def test_default_shows_what_backbones_scan_along():
    assert set(CROSS + HILBERT + HILBERT_SHIFT) <= {
        name + flip for name in DEFAULT_ROUTES for flip in ('', FLIP)
    }
    assert any(name.startswith('w') for name in DEFAULT_ROUTES)
    assert len(parse_routes(DEFAULT_ROUTES)) == len(set(DEFAULT_ROUTES))


@pytest.mark.parametrize(
    'name', ['h', 'v_flip', 'w3', 'hilbert', 'hilbert_shift']
)
@pytest.mark.parametrize('height, width', [(5, 8), (7, 4)])
def test_lines_are_the_route(name, height, width):
    (axis,) = panels(route_figure(name, height, width)).values()
    lines = drawn_lines(axis)
    indices = route_indices(name, height, width)
    visited = indices[indices >= 0]
    segments = np.concatenate([lines['jumps'][0], lines['steps'][0]])
    times = np.concatenate([lines['jumps'][1], lines['steps'][1]])
    segments = segments[np.argsort(times)]
    columns, rows = segments[:, 0].T
    assert np.array_equal(rows * width + columns, visited[:-1])
    columns, rows = segments[:, 1].T
    assert np.array_equal(rows * width + columns, visited[1:])
    # Rows grow downwards.
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    reach = np.abs(np.diff(lines['steps'][0], axis=1)).max()
    assert reach == 1
    if len(lines['jumps'][0]):
        farther = np.abs(np.diff(lines['jumps'][0], axis=1)).max((1, 2))
        assert farther.min() > 1


@pytest.mark.parametrize('name', ['h', 'hilbert'])
def test_pathways_take_the_place_of_steps(name):
    figure = route_figure(name, 5, 8, pathways=0.25)
    (axis,) = panels(figure).values()
    parents = tree_parents(name, 5, 8, 0.25)
    thin, thick, paths = (
        c for c in axis.collections if isinstance(c, LineCollection)
    )
    edges = set()
    for lines in (thick, paths):
        for segment in lines.get_segments():
            (parent, child) = (segment @ [1, 8]).astype(int)
            edges.add((parent, child))
    # Thick steps and pathways are the tree; a row's jump to the next is thin.
    for segment in thin.get_segments():
        (before, token) = (segment @ [1, 8]).astype(int)
        if parents[token] == before:
            edges.add((before, token))
    assert edges == {(p, t) for t, p in enumerate(parents) if p >= 0}
    assert len(paths.get_segments()) == 10
    assert any('25 % of tokens' in text.get_text() for text in figure.texts)


def test_colors_tell_the_time_and_dots_the_ends():
    (axis,) = panels(route_figure('w3', 4, 4)).values()
    (thin, thick) = [c for c in axis.collections if type(c) is LineCollection]
    steps = np.flatnonzero(route_indices('w3', 4, 4) >= 0)
    for lines in (thin, thick):
        assert lines.get_clim() == (steps[0], steps[-1])
    # Zero tokens take time.
    times = np.concatenate([thin.get_array(), thick.get_array()])
    assert sorted(times) == steps[:-1].tolist()
    first, last = axis.lines
    assert first.get_xydata().tolist() == [[0, 0]]
    assert last.get_xydata().tolist() == [[3, 3]]
    assert to_hex(first.get_color()) == '#000000'
    assert to_hex(last.get_color()) == '#ffffff'


def test_every_panel_has_its_name_and_scores():
    names = ('h', 'w2', 'hilbert', 'v', 'hilbert_t')
    axes = panels(route_figure(names, 14, 14))
    assert tuple(axes) == names
    for name, axis in axes.items():
        mean = structural_distortion(name, 14, 14, 'arithmetic')
        typical = structural_distortion(name, 14, 14)
        (text,) = [text.get_text() for text in axis.texts]
        assert text == f'mean {mean:.1f}, geometric mean {typical:.1f}'
    rows = {round(axis.get_position().y0, 6) for axis in axes.values()}
    assert len(rows) == 2 and len(names) == PANELS_PER_ROW + 1


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    'height, width', [(1, 1), (1, 50), (50, 1), (70, 9), (9, 70)]
)
def test_any_map_fits_its_panel(height, width):
    figure = route_figure(('h', 'hilbert'), height, width)
    figure.canvas.draw()
    assert max(figure.get_size_inches()) < 8
    for axis in panels(figure).values():
        left, right = axis.get_xlim()
        bottom, top = axis.get_ylim()
        assert left < -0.2 and right > width - 0.8
        assert top < -0.2 and bottom > height - 0.8
        box = axis.get_window_extent()
        across, down = box.width / (right - left), box.height / (bottom - top)
        assert across == pytest.approx(down)  # no distortion of the picture


@pytest.mark.parametrize('suffix', ['png', 'pdf', 'svg', 'jpg'])
def test_suffix_chooses_the_format(tmp_path, suffix):
    out = tmp_path / 'new folder' / f'routes.{suffix}'
    draw_routes('h w2', 3, 4, out)
    if suffix in ('png', 'jpg'):
        with Image.open(out) as picture:
            assert picture.format == {'png': 'PNG', 'jpg': 'JPEG'}[suffix]
    else:
        assert out.read_bytes().startswith(
            {'pdf': b'%PDF', 'svg': b'<?xml'}[suffix]
        )


def test_failed_writing_keeps_the_old_picture(tmp_path, monkeypatch):
    out = tmp_path / 'routes.png'
    out.write_bytes(b'old')

    def fail(figure, file, **_):
        file.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(Figure, 'savefig', fail)
    with pytest.raises(OSError, match='disk full'):
        draw_routes('h', 2, 2, out)
    assert out.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('h', 2, 2, 'routes'), 'its suffix must be one of .*png'),
        (('nowhere', 2, 2, 'routes.png'), "unknown route 'nowhere'"),
        (('', 2, 2, 'routes.png'), 'no routes given'),
        (('h', 0, 2, 'routes.png'), 'needs a map, got 0 x 2'),
        (('w2', 3, 3, 'routes.png', 0.1), 'needs a route without zero'),
        (('h', 3, 3, 'routes.png', 1.1), 'must be a share of tokens'),
    ],
)
def test_bad_requests_write_nothing(tmp_path, arguments, message):
    name, height, width, out, *share = arguments
    with pytest.raises(ValueError, match=message):
        draw_routes(name, height, width, tmp_path / out, *share)
    assert not list(tmp_path.iterdir())
