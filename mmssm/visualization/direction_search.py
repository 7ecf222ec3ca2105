"""Pictures of searches for scan directions."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Unlike pyplot, this needs no display and keeps no state.
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from mmssm.analysis.direction_search import TOP, Directions, History, derive
from mmssm.backbones.directions import CANDIDATES

from .figures import check_figure_path, save_figure

# One color for a route and its reverse; color-blind people can tell the
# colors apart.
_COLORS = dict(h='#0072b2', v='#d55e00', w2='#009e73', w7='#aa4499')
# Sizes of a picture's parts, in inches.
_ROW_HEIGHT = 0.22
_GRID_WIDTH = 4.2
_PANEL_WIDTH, _PANEL_HEIGHT = 1.45, 1.1
_TITLES_HEIGHT = 1.0


def draw_histories(
    histories: Sequence[History], path: str | Path, top: int = TOP
) -> None:
    """Draw searches, one below the other.

    The left side shows each block's probabilities during training, the right
    side the last ones and the routes that are kept. A checkpoint has only the
    right side.

    Args:
        histories (Sequence[History]): One or more searches.
        path (str | Path): The picture; its suffix chooses the format.
        top (int): How many routes a block keeps. Defaults to 4.

    Raises:
        ValueError: The suffix is not a known format, or ``top`` is out of
            range.
    """
    check_figure_path(path)
    widths, heights = zip(*(_size(history) for history in histories))
    figure = Figure((max(widths), sum(heights)), layout='constrained')
    parts = figure.subfigures(
        len(histories), 1, height_ratios=heights, squeeze=False
    )
    for part, history in zip(parts.flat, histories):
        _draw(part, history, derive(history.probabilities[-1], top))
    if any(len(history.iterations) > 1 for history in histories):
        figure.legend(
            handles=[Line2D([], [], **_style(name)) for name in CANDIDATES],
            loc='outside lower center',
            ncols=len(CANDIDATES),
            fontsize='small',
            frameon=False,
        )
    save_figure(figure, path)


def _size(history: History) -> tuple[float, float]:
    """Width and height of a search's picture, in inches."""
    blocks = history.probabilities.shape[1]
    height = blocks * _ROW_HEIGHT
    if len(history.iterations) == 1:
        return _GRID_WIDTH, height + _TITLES_HEIGHT
    rows, columns = _panels(blocks)
    return (
        _GRID_WIDTH + columns * _PANEL_WIDTH,
        max(height, rows * _PANEL_HEIGHT) + _TITLES_HEIGHT,
    )


def _panels(blocks: int) -> tuple[int, int]:
    """Rows and columns for the panels, with few empty places."""
    columns = min((5, 6, 4), key=lambda columns: -blocks % columns)
    columns = min(columns, math.ceil(blocks / 2)) if blocks < 5 else columns
    return math.ceil(blocks / columns), columns


def _draw(figure: SubFigure, history: History, kept: Directions) -> None:
    figure.suptitle(history.name, fontsize='medium')
    if len(history.iterations) == 1:
        _draw_grid(figure.subplots(), history.probabilities[-1], kept)
        return
    rows, columns = _panels(len(kept))
    left, right = figure.subfigures(
        1, 2, width_ratios=(columns * _PANEL_WIDTH, _GRID_WIDTH)
    )
    panels = left.subplots(
        rows, columns, sharex=True, sharey=True, squeeze=False
    )
    for block, axis in enumerate(panels.flat):
        if block < len(kept):
            _draw_block(axis, history, block, kept[block])
            # Label the lowest panel of each column, also above the last row.
            axis.tick_params(labelbottom=block + columns >= len(kept))
        else:
            axis.axis('off')
    left.supxlabel('iteration', fontsize='small')
    _draw_grid(right.subplots(), history.probabilities[-1], kept)


def _style(name: str) -> dict:
    """The style of a route's line; its reverse has the same color."""
    family = name.removesuffix('_flip')
    return dict(
        label=name,
        color=_COLORS[family],
        linestyle='-' if name == family else '--',
    )


def _draw_block(
    axis: Axes, history: History, block: int, kept: Sequence[str]
) -> None:
    """Draw one block's probabilities during training."""
    for number, name in enumerate(CANDIDATES):
        axis.plot(
            history.iterations,
            history.probabilities[:, block, number],
            **_style(name),
            linewidth=1.6 if name in kept else 0.8,
            alpha=1.0 if name in kept else 0.45,
        )
    axis.axhline(1 / len(CANDIDATES), color='0.7', linewidth=0.6, zorder=0)
    axis.set_title(f'block {block}', fontsize='small', pad=2)
    axis.set_xlim(history.iterations[0], history.iterations[-1])
    axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axis.xaxis.set_major_formatter(EngFormatter(sep=''))
    axis.yaxis.set_major_locator(MaxNLocator(3))
    axis.yaxis.set_major_formatter(lambda share, _: f'{100 * share:g}%')
    axis.tick_params(labelsize='x-small')


def _draw_grid(
    axis: Axes, probabilities: np.ndarray, kept: Directions
) -> None:
    """Draw all probabilities in percent; kept routes are colored."""
    pixels = np.ones((*probabilities.shape, 3))
    for (block, number), share in np.ndenumerate(probabilities):
        name = CANDIDATES[number]
        chosen = name in kept[block]
        if chosen:
            pixels[block, number] = to_rgb(_style(name)['color'])
        axis.text(
            number,
            block,
            f'{100 * share:.1f}',
            ha='center',
            va='center',
            fontsize='x-small',
            color='white' if chosen else '0.45',
        )
    axis.imshow(pixels, aspect='auto')
    axis.set_xticks(range(len(CANDIDATES)), CANDIDATES, fontsize='x-small')
    axis.set_yticks(range(len(kept)), range(len(kept)), fontsize='x-small')
    axis.set_ylabel('block', fontsize='small')
    axis.set_title(
        f'{len(kept[0])} likeliest routes, in percent', fontsize='small'
    )
    # White lines between the cells.
    axis.set_xticks(np.arange(0.5, len(CANDIDATES) - 1), minor=True)
    axis.set_yticks(np.arange(0.5, len(kept) - 1), minor=True)
    axis.grid(which='minor', color='white', linewidth=1.5)
    axis.tick_params(which='both', length=0)
    axis.spines[:].set_visible(False)
