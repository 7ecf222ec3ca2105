"""What a search for scan directions found: routes, a config and a picture.

The supernet is that of `LocalMamba <https://arxiv.org/abs/2403.09338>`_, see
:class:`mmssm.engine.DirectionSearchHook`.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

# Unlike pyplot, this needs no display and keeps no state.
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator
from mmengine.registry import MODELS
from torch import Tensor

from mmssm.backbones.directions import CANDIDATES, SEARCH
from mmssm.checkpoint import atomic_write
from mmssm.engine import ConfigError
from mmssm.engine.config import load_config
from mmssm.engine.direction_search_hook import FILE_NAME, read_records
from mmssm.engine.errors import one_line
from mmssm.engine.strict_load import open_checkpoint

from .figures import check_figure_path, save_figure

Directions = list[tuple[str, ...]]

TOP = 4  # routes of a block in the originals

_WEIGHTS = re.compile(
    r'(?:module\.)?(?:backbone\.)?(.+)\.mixer\.merge\.weights'
)
# One colour for a route and its reverse, told apart as colour-blind people
# see them, too.
_COLORS = dict(h='#0072b2', v='#d55e00', w2='#009e73', w7='#aa4499')
# Inches of a picture's parts.
_ROW_HEIGHT = 0.22
_GRID_WIDTH = 4.2
_PANEL_WIDTH, _PANEL_HEIGHT = 1.45, 1.1
_TITLES_HEIGHT = 1.0


@dataclass
class History:
    """The course of one search.

    Attributes:
        name (str): What to call it in a picture.
        iterations (np.ndarray): When it was looked at, (T,).
        probabilities (np.ndarray): Of the candidates in every block,
            (T, blocks, 8).
    """

    name: str
    iterations: np.ndarray
    probabilities: np.ndarray


def read_probabilities(
    state_dict: Mapping[str, Tensor],
) -> tuple[list[str], np.ndarray]:
    """Which routes a supernet prefers.

    Args:
        state_dict (Mapping[str, Tensor]): A backbone's weights, or those of a
            model with one, under mmssm's names.

    Returns:
        tuple[list[str], np.ndarray]: The blocks' names in the order of the
        model (``'layers.0'`` or ``'stages.0.blocks.0'``, ...), and the
        candidates' probabilities, (blocks, 8) float64.

    Raises:
        ValueError: There are no weights of a search, or they are damaged.
    """
    found = {}
    for key, value in state_dict.items():
        match = _WEIGHTS.fullmatch(key)
        if match:
            found[match[1]] = value
    if not found:
        raise ValueError(
            'there are no weights of a direction search (mixer.merge.weights);'
            ' give a checkpoint that was trained with '
            f"model.backbone.directions='{SEARCH}'"
        )
    for name, weights in found.items():
        if tuple(weights.shape) != (len(CANDIDATES),):
            raise ValueError(
                f'the weights of {name} have shape {tuple(weights.shape)} '
                f'instead of ({len(CANDIDATES)},), one for each of '
                f'{" ".join(CANDIDATES)}'
            )
        if not weights.isfinite().all():
            raise ValueError(
                f'the weights of {name} are not finite: the search diverged; '
                'give an earlier checkpoint'
            )
    names = sorted(found, key=_numbers)
    weights = torch.stack([found[name].detach().double() for name in names])
    return names, weights.softmax(1).cpu().numpy()


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', name)]


def derive(probabilities: np.ndarray, top: int = TOP) -> Directions:
    """The likeliest routes of every block.

    Args:
        probabilities (np.ndarray): Of the candidates, (blocks, 8).
        top (int): How many routes a block keeps. Defaults to 4.

    Returns:
        list[tuple[str, ...]]: Their names, in the candidates' order and not
        in that of their probabilities, as the originals list them. Of equal
        ones the earlier candidates are kept.

    Raises:
        ValueError: ``top`` is not between 1 and 8.
    """
    if not 1 <= top <= len(CANDIDATES):
        raise ValueError(
            f'a block keeps 1 to {len(CANDIDATES)} routes, got top={top}'
        )
    best = np.argsort(-np.asarray(probabilities), axis=1, kind='stable')
    return [tuple(CANDIDATES[i] for i in sorted(row)) for row in best[:, :top]]


def as_table(
    names: Sequence[str],
    probabilities: np.ndarray,
    directions: Sequence[Sequence[str]],
) -> str:
    """The routes that blocks keep, as lines of text, with probabilities.

    Args:
        names (Sequence[str]): Names of the blocks.
        probabilities (np.ndarray): Of the candidates, (blocks, 8).
        directions (Sequence[Sequence[str]]): Route names of every block.
    """
    width = max(len(name) for name in ('block', *names))
    head = f'{"block":<{width}}  routes, each with its probability in per cent'
    lines = [head]
    for name, shares, routes in zip(names, probabilities, directions):
        cells = [
            f'{route:<7} {100 * shares[CANDIDATES.index(route)]:4.1f}'
            for route in routes
        ]
        lines.append(f'{name:<{width}}  {"   ".join(cells)}')
    return '\n'.join(lines)


def write_fragment(
    path: str | Path,
    directions: Sequence[Sequence[str]],
    source: str,
    base: str | Path | None = None,
) -> None:
    """Write a config with the directions of every block.

    It sets ``model.backbone.directions`` and nothing else. With ``base`` it
    is ready for training: it inherits that config, which says how wide the
    model is and how it learns. Without, the user adds the line
    ``_base_ = '...'``. Beside other bases of a config it cannot stand, since
    mmengine lets only one of them set ``model``.

    Args:
        path (str | Path): The file to write, ``.py``.
        directions (Sequence[Sequence[str]]): Route names of every block.
        source (str): Where they come from, for the file's first lines.
        base (str | Path, optional): The config to inherit. The file names it
            relative to its own folder. Defaults to none.

    Raises:
        ConfigError: ``path`` is no place for a config, or ``base`` cannot be
            used: it is missing, a search itself or its backbone does not have
            these blocks.
    """
    path = Path(path)
    if path.suffix != '.py' or path.is_dir():
        raise ConfigError(
            f'{path} is no name for a config; write to a file that ends in .py'
        )
    head = [
        '# Scan directions that were found by searching. They come from',
        f'# {" ".join(source.split())}',
    ]
    if base is None:
        head += ["# To train with them, put _base_ = '<config>.py' below."]
    else:
        _check_base(path, Path(base), directions)
        relative = os.path.relpath(Path(base).resolve(), path.parent.resolve())
        head += [f'_base_ = {Path(relative).as_posix()!r}']
    rows = [f'            {" ".join(names)!r},' for names in directions]
    lines = [
        *head,
        '',
        'model = dict(',
        '    backbone=dict(',
        '        directions=[',
        *rows,
        '        ],',
        '    ),',
        ')',
        '',
    ]
    with atomic_write(path) as file:
        file.write('\n'.join(lines).encode())


def _check_base(
    path: Path, base: Path, directions: Sequence[Sequence[str]]
) -> None:
    """Raise unless the base's backbone takes these directions."""
    if path.exists() and base.exists() and path.samefile(base):
        raise ConfigError(f'{path} is the base itself; write to another file')
    cfg = load_config(str(base))
    backbone = cfg.get('model', {}).get('backbone')
    if backbone is None:
        raise ConfigError(f'base {base} has no model.backbone to change')
    if backbone.get('directions') == SEARCH:
        raise ConfigError(
            f'base {base} is a search itself; give the config to train the '
            'result with'
        )
    try:
        with torch.device('meta'):  # holds no numbers
            MODELS.build(
                {**backbone, 'directions': directions, 'init_cfg': None}
            )
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f'base {base} does not take these directions: {one_line(error)}'
        ) from error


def read_history(path: str | Path) -> History:
    """Read the course of a search, or its state in a checkpoint.

    Args:
        path (str | Path): The ``directions.jsonl`` that
            :class:`mmssm.engine.DirectionSearchHook` wrote, a work dir with
            one, or a checkpoint, also an original author's.

    Returns:
        History: Of a checkpoint, with one moment, called iteration 0.

    Raises:
        ValueError: There is no such file, or nothing of a search in it.
        CheckpointError: The checkpoint cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise ValueError(
                f'no {FILE_NAME} in {path}: name the file, if it is called '
                'otherwise, or a checkpoint'
            )
        path = path / FILE_NAME
    if path.suffix == '.jsonl':
        return _read_log(path)
    probabilities = load_probabilities(path)[1]
    name = f'{path.absolute().parent.name}/{path.name}'
    return History(name, np.zeros(1, dtype=int), probabilities[None])


def load_probabilities(
    checkpoint: str | Path,
) -> tuple[list[str], np.ndarray]:
    """Which routes the supernet in a checkpoint prefers.

    Args:
        checkpoint (str | Path): A file or address; an original author's is
            converted.

    Returns:
        tuple[list[str], np.ndarray]: As :func:`read_probabilities`.

    Raises:
        CheckpointError: The file cannot be read.
        ValueError: It holds no supernet.
    """
    content = open_checkpoint(str(checkpoint))
    try:
        return read_probabilities(content.get('state_dict', content))
    except ValueError as error:
        raise ValueError(f'{checkpoint}: {error}') from error


def _read_log(path: Path) -> History:
    if not path.is_file():
        raise ValueError(f'{path} does not exist; check the path')
    records = read_records(path)
    if not records:
        raise ValueError(f'nothing was written yet to {path}')
    blocks = len(records[0]['probabilities'])
    for record in records:
        if record.get('candidates') != list(CANDIDATES) or not _are_shares(
            record['probabilities'], blocks
        ):
            raise ValueError(
                f'{path} cannot be drawn: at iteration {record["iter"]} it '
                f'has no probabilities of {" ".join(CANDIDATES)} in {blocks} '
                'blocks that sum to 1 (a search that diverged has none)'
            )
    return History(
        path.absolute().parent.name,
        np.array([record['iter'] for record in records]),
        np.array([record['probabilities'] for record in records]),
    )


def _are_shares(rows: list, blocks: int) -> bool:
    try:
        shares = np.array(rows, dtype=float)
    except (ValueError, TypeError):
        return False
    return shares.shape == (blocks, len(CANDIDATES)) and np.allclose(
        shares.sum(1), 1, atol=1e-3
    )


def draw_histories(
    histories: Sequence[History], path: str | Path, top: int = TOP
) -> None:
    """Draw searches, one below the other.

    To the left each block's probabilities over the training, to the right
    the last ones with the routes that are kept. Of a checkpoint there is the
    right side only.

    Args:
        histories (Sequence[History]): One or more searches.
        path (str | Path): The picture; its suffix chooses the format.
        top (int): How many routes a block keeps. Defaults to 4.

    Raises:
        ValueError: The suffix is no known format, or ``top`` is out of range.
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
    """Inches of a search's picture: width and height."""
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
    """Rows and columns of as many panels, with few empty places."""
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
            # The lowest of its column, which need not be in the last row.
            axis.tick_params(labelbottom=block + columns >= len(kept))
        else:
            axis.axis('off')
    left.supxlabel('iteration', fontsize='small')
    _draw_grid(right.subplots(), history.probabilities[-1], kept)


def _style(name: str) -> dict:
    """How a route's line looks; a reversed one's has the same colour."""
    family = name.removesuffix('_flip')
    return dict(
        label=name,
        color=_COLORS[family],
        linestyle='-' if name == family else '--',
    )


def _draw_block(
    axis: Axes, history: History, block: int, kept: Sequence[str]
) -> None:
    """One block's probabilities over the training."""
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
    """Every block's probabilities in per cent; kept routes have colour."""
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
        f'{len(kept[0])} likeliest routes, in per cent', fontsize='small'
    )
    # White lines between the cells.
    axis.set_xticks(np.arange(0.5, len(CANDIDATES) - 1), minor=True)
    axis.set_yticks(np.arange(0.5, len(kept) - 1), minor=True)
    axis.grid(which='minor', color='white', linewidth=1.5)
    axis.tick_params(which='both', length=0)
    axis.spines[:].set_visible(False)
