"""Pictures of routes: lines over the map, colored by time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Unlike pyplot, this needs no display and keeps no state.
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from mmssm.scans import (
    parse_routes,
    route_indices,
    structural_distortion,
)
from mmssm.scans.tree import tree_parents
from mmssm.utils import UserError

from .figures import check_figure_path, save_figure

# Without reversed routes, which look the same.
DEFAULT_ROUTES = (
    'h',
    'v',
    'w2',
    'w7',
    'hilbert',
    'hilbert_t',
    'hilbert_shift',
    'hilbert_t_shift',
)
PANELS_PER_ROW = 4
# Inches.
PANEL = 2.3  # width of a panel, and height on a square map
GAP = 0.25  # beside panels
TITLE = 0.6  # above a row of panels
FOOT = 0.85  # below all panels
# Without the last tenth: yellow is hard to see.
COLORS = ListedColormap(colormaps['plasma'](np.linspace(0, 0.9, 256)))
GROUND = '#f3f4f6'
GRAY = '#6b7280'


def draw_routes(
    names: str | Sequence[str],
    height: int,
    width: int,
    out: str | Path,
    pathways: float = 0.0,
) -> None:
    """Draw routes side by side in one picture.

    Args:
        names (str | Sequence[str]): Route names, a sequence or separated by
            spaces.
        height (int): Rows of the map.
        width (int): Columns of the map.
        out (str | Path): The picture; its suffix chooses the format.
        pathways (float): As in :func:`route_figure`. Defaults to 0.

    Raises:
        UserError: If a route is unknown or has no tree, the map has no token
            or the suffix is not a known format.
    """
    check_figure_path(out)
    figure = route_figure(names, height, width, pathways)
    save_figure(figure, out)


def route_figure(
    names: str | Sequence[str],
    height: int,
    width: int,
    pathways: float = 0.0,
) -> Figure:
    """Draw a panel per route, with its structural distortion in the title.

    Args:
        names (str | Sequence[str]): Route names, a sequence or separated by
            spaces.
        height (int): Rows of the map.
        width (int): Columns of the map.
        pathways (float): Draw the tree of
            :func:`mmssm.scans.tree.tree_parents` that has this share of
            pathways, in place of the plain route. Defaults to 0.

    Raises:
        UserError: If a route is unknown or the map has no token; with
            pathways, also if a route has zero tokens.
    """
    names = parse_routes(names)
    panel = _panel_size(height, width)
    columns = min(PANELS_PER_ROW, len(names))
    rows = -(-len(names) // columns)
    figure_size = panel * [columns, rows]
    figure_size += [(columns + 1) * GAP, rows * TITLE + FOOT]
    figure = Figure(figsize=figure_size)
    for number, name in enumerate(names):
        row, column = divmod(number, columns)
        left = GAP + column * (panel[0] + GAP)
        bottom = figure_size[1] - (row + 1) * (TITLE + panel[1])
        axis = figure.add_axes(
            (*([left, bottom] / figure_size), *(panel / figure_size))
        )
        _draw_route(axis, name, height, width, pathways)
    _add_foot(figure, pathways)
    return figure


def _panel_size(height: int, width: int) -> np.ndarray:
    """Width and height (2,) of a panel in inches, shaped like the map."""
    if height < 1 or width < 1:
        raise UserError(f'a route needs a map, got {height} x {width} tokens')
    return PANEL * np.array([1, np.clip(height / width, 0.25, 2)])


def _draw_route(
    axis: Axes, name: str, height: int, width: int, pathways: float
) -> None:
    indices = route_indices(name, height, width)
    (steps,) = np.nonzero(indices >= 0)
    rows, columns = np.divmod(indices[steps], width)
    points = np.stack([columns, rows], 1)
    lines = np.stack([points[:-1], points[1:]], 1)
    thin = np.abs(lines[:, 1] - lines[:, 0]).max(1) > 1
    if pathways:
        parents = tree_parents(name, height, width, pathways)
        leaving = parents[indices[1:]] != indices[:-1]
        thin |= leaving
    panel = _panel_size(height, width)
    inch = ([width + 0.6, height + 0.6] / panel).max()  # tokens in an inch
    thick = min(0.36 * 72 / inch, 6)  # points
    left, top = ([width - 1, height - 1] - panel * inch) / 2
    axis.set(xlim=(left, width - 1 - left), ylim=(height - 1 - top, top))
    _add_lines(axis, lines, thin, steps, linewidth=0.25 * thick, alpha=0.55)
    _add_lines(axis, lines, ~thin, steps, linewidth=thick)
    if pathways:
        child = indices[1:][leaving]
        ends = np.stack([parents[child], child], 1)
        _add_pathways(axis, ends, width, 0.5 * thick)
    # Dots mark tokens between two thin lines; thick lines hide the others.
    axis.scatter(*points.T, 0.5 * thick**2, steps, cmap=COLORS, linewidths=0)
    _mark_end(axis, points[0], 'black', thick)
    _mark_end(axis, points[-1], 'white', thick)
    axis.set(xticks=[], yticks=[], facecolor=GROUND)
    axis.spines[:].set_visible(False)
    title = dict(loc='left', fontsize=11, fontweight='bold', pad=18)
    axis.set_title(name, **title)
    arithmetic, geometric = (
        structural_distortion(name, height, width, average)
        for average in ('arithmetic', 'geometric')
    )
    axis.annotate(
        f'mean {arithmetic:.1f}, geometric mean {geometric:.1f}',
        (0, 1),
        xytext=(0, 6),  # points
        xycoords='axes fraction',
        textcoords='offset points',
        color=GRAY,
        fontsize=9,
    )


def _add_lines(
    axis: Axes,
    lines: np.ndarray,
    chosen: np.ndarray,
    steps: np.ndarray,
    **style: float,
) -> None:
    collection = LineCollection(
        lines[chosen],
        cmap=COLORS,
        capstyle='round',
        snap=False,
        zorder=2,
        **style,
    )
    collection.set_array(steps[:-1][chosen])
    collection.set_clim(steps[0], steps[-1])
    axis.add_collection(collection)


def _add_pathways(
    axis: Axes, ends: np.ndarray, width: int, linewidth: float
) -> None:
    """Draw lines between parents and children, ``ends`` (P, 2)."""
    rows, columns = np.divmod(ends, width)
    axis.add_collection(
        LineCollection(
            np.stack([columns, rows], -1),
            colors='black',
            linewidths=linewidth,
            capstyle='round',
            zorder=2.5,
            label='pathways',
        )
    )


def _mark_end(axis: Axes, point: np.ndarray, color: str, thick: float) -> None:
    axis.plot(
        *point,
        'o',
        color=color,
        markeredgecolor='black',
        markeredgewidth=0.25 * thick,
        markersize=1.5 * thick,
        zorder=3,
    )


def _add_foot(figure: Figure, pathways: float) -> None:
    """Explain the colors and the numbers below the panels."""
    width, height = figure.get_size_inches()
    length, thick = 0.4, 0.09 / height
    bar = figure.add_axes((0.5 - length / 2, 0.45 / height, length, thick))
    scale = ScalarMappable(cmap=COLORS)
    figure.colorbar(scale, cax=bar, orientation='horizontal').set_ticks([])
    bar.spines[:].set_visible(False)
    style = dict(color=GRAY, fontsize=9, va='center')
    middle = 0.45 / height + thick / 2
    aside = length / 2 + 0.1 / width
    figure.text(0.5 - aside, middle, 'first', ha='right', **style)
    figure.text(0.5 + aside, middle, 'last', ha='left', **style)
    text = 'structural distortion, in steps'
    if pathways:
        text += f'; black: pathways, {100 * pathways:g} % of tokens'
    figure.text(0.5, 0.2 / height, text, ha='center', **style)
