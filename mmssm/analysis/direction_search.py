"""Read the results of a search for scan directions; derive a config.

The supernet is that of `LocalMamba <https://arxiv.org/abs/2403.09338>`_, see
:class:`mmssm.engine.DirectionSearchHook`.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor

from mmssm.backbones.directions import CANDIDATES, SEARCH
from mmssm.checkpoint.strict_load import open_checkpoint
from mmssm.utils import ConfigError, UserError, atomic_write
from mmssm.utils.config import load_config
from mmssm.utils.errors import one_line

Directions = list[tuple[str, ...]]

TOP = 4  # routes of a block in LocalMamba
FILE_NAME = 'directions.jsonl'

_WEIGHTS = re.compile(
    r'(?:module\.)?(?:backbone\.)?(.+)\.mixer\.merge\.weights'
)


@dataclass
class History:
    """The course of one search.

    Attributes:
        name (str): The search's name in a picture.
        iterations (np.ndarray): The iterations that were recorded, (T,).
        probabilities (np.ndarray): The candidates' probabilities in every
            block, (T, blocks, 8).
    """

    name: str
    iterations: np.ndarray
    probabilities: np.ndarray


def read_probabilities(
    state_dict: Mapping[str, Tensor],
) -> tuple[list[str], np.ndarray]:
    """Read the probabilities of routes from a supernet's weights.

    Args:
        state_dict (Mapping[str, Tensor]): Weights of a backbone, or of a model
            with one, with mmssm's names.

    Returns:
        tuple[list[str], np.ndarray]: The blocks' names in the order of the
        model (``'layers.0'`` or ``'stages.0.blocks.0'``, ...), and the
        candidates' probabilities, (blocks, 8) float64.

    Raises:
        UserError: There are no weights of a search, or they are invalid.
    """
    found = {}
    for key, value in state_dict.items():
        match = _WEIGHTS.fullmatch(key)
        if match:
            found[match[1]] = value
    if not found:
        raise UserError(
            'there are no weights of a direction search (mixer.merge.weights);'
            ' give a checkpoint that was trained with '
            f"model.backbone.directions='{SEARCH}'"
        )
    for name, weights in found.items():
        if tuple(weights.shape) != (len(CANDIDATES),):
            raise UserError(
                f'the weights of {name} have shape {tuple(weights.shape)} '
                f'instead of ({len(CANDIDATES)},), one for each of '
                f'{" ".join(CANDIDATES)}'
            )
        if not weights.isfinite().all():
            raise UserError(
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
        probabilities (np.ndarray): The candidates' probabilities,
            (blocks, 8).
        top (int): How many routes a block keeps. Defaults to 4.

    Returns:
        list[tuple[str, ...]]: Names of the routes, in the order of the
        candidates (not of their probabilities), as in LocalMamba's code. Of
        equally likely candidates, the earlier ones are kept.

    Raises:
        UserError: ``top`` is not between 1 and 8.
    """
    if not 1 <= top <= len(CANDIDATES):
        raise UserError(
            f'a block keeps 1 to {len(CANDIDATES)} routes, got top={top}'
        )
    best = np.argsort(-np.asarray(probabilities), axis=1, kind='stable')
    return [tuple(CANDIDATES[i] for i in sorted(row)) for row in best[:, :top]]


def as_table(
    names: Sequence[str],
    probabilities: np.ndarray,
    directions: Sequence[Sequence[str]],
) -> str:
    """Format the routes of each block, with probabilities, as a table.

    Args:
        names (Sequence[str]): Names of the blocks.
        probabilities (np.ndarray): The candidates' probabilities,
            (blocks, 8).
        directions (Sequence[Sequence[str]]): Route names of every block.
    """
    width = max(len(name) for name in ('block', *names))
    head = f'{"block":<{width}}  routes, each with its probability in percent'
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

    It sets only ``model.backbone.directions``. With ``base``, it inherits the
    model and the schedule of that config and is ready for training. Without,
    the user adds the line ``_base_ = '...'``. It cannot be one of several
    bases of a config, since mmengine lets only one of them set ``model``.

    Args:
        path (str | Path): The file to write, ``.py``.
        directions (Sequence[Sequence[str]]): Route names of every block.
        source (str): Where they come from; written at the top of the file.
        base (str | Path, optional): The config to inherit. The file names it
            relative to its own folder. Defaults to none.

    Raises:
        ConfigError: ``path`` does not name a Python file, or ``base`` cannot
            be used: it is missing, it is itself a search, or its backbone
            does not have these blocks.
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
    """Raise a ConfigError unless the base's backbone takes the directions."""
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
        with torch.device('meta'):  # without memory for weights
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
        History: The search; for a checkpoint, only one record, at iteration 0.

    Raises:
        UserError: The file does not exist, or it has no search in it.
        CheckpointError: The checkpoint cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            raise UserError(
                f'no {FILE_NAME} in {path}: give the file, if it has another '
                'name, or a checkpoint'
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
    """Read the probabilities of routes from a checkpoint.

    Args:
        checkpoint (str | Path): A file or address; a checkpoint of the
            original authors is converted.

    Returns:
        tuple[list[str], np.ndarray]: As :func:`read_probabilities`.

    Raises:
        CheckpointError: The file cannot be read.
        UserError: It is not the checkpoint of a supernet.
    """
    content = open_checkpoint(str(checkpoint))
    try:
        return read_probabilities(content.get('state_dict', content))
    except ValueError as error:
        raise UserError(f'{checkpoint}: {error}') from error


def _read_log(path: Path) -> History:
    if not path.is_file():
        raise UserError(f'{path} does not exist; check the path')
    records = read_records(path)
    if not records:
        raise UserError(f'nothing was written yet to {path}')
    blocks = len(records[0]['probabilities'])
    for record in records:
        if record.get('candidates') != list(CANDIDATES) or not _are_shares(
            record['probabilities'], blocks
        ):
            raise UserError(
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


def read_records(path: str | Path) -> list[dict]:
    """Read a file of :class:`DirectionSearchHook`.

    Args:
        path (str | Path): The file. An incomplete last line, left by a killed
            run, is ignored.

    Returns:
        list[dict]: The lines' contents, see the hook.

    Raises:
        UserError: Another line was not written by the hook.
    """
    lines = Path(path).read_text('utf-8', errors='replace').splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record['iter'] = int(record['iter'])
            record['probabilities'] = list(record['probabilities'])
        except (ValueError, KeyError, TypeError) as error:
            cut_off = isinstance(error, json.JSONDecodeError)
            if cut_off and number == len(lines):
                break
            raise UserError(
                f'{path} is not the file of a direction search: line {number} '
                'has no "iter" and "probabilities"'
            ) from None
        records.append(record)
    return records
