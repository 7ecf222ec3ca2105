"""What the checkpoints of LocalMamba's two models have in common."""

from typing import Any

from mmssm.utils import CheckpointError

from ..backbones.base import Arch, SSMBackbone
from ..backbones.directions import SEARCH
from .key_map import RenamedWeights

_SEARCH_WEIGHTS = '.merge.weights'


def search_fields(weights: RenamedWeights) -> dict[str, Any]:
    """The arch field ``directions`` if the file is a search's supernet."""
    if any(name.endswith(_SEARCH_WEIGHTS) for name in weights):
        return dict(directions=SEARCH)
    return {}


def flatten_search_weights(weights: RenamedWeights) -> None:
    """Bring a supernet's weights of routes from (K, 1, 1, 1) to (K,)."""
    for name, value in weights.items():
        if name.endswith(_SEARCH_WEIGHTS):
            weights[name] = value.flatten()


def check_directions(
    backbone: type[SSMBackbone], arch: Arch, num_blocks: int, num_routes: int
) -> None:
    """Raise unless a file has as many blocks and routes as the arch.

    A file does not hold its directions; those of the arch are taken.

    Args:
        backbone (type): A class whose archs have ``directions``.
        arch (str | dict): Its arch.
        num_blocks (int): Blocks of the file.
        num_routes (int): Routes of the file's first block.

    Raises:
        CheckpointError: The numbers differ.
    """
    directions = backbone.parse_arch(arch)[1]['directions']
    if directions == SEARCH:
        return
    known = len(directions), len(directions[0].split())
    if known != (num_blocks, num_routes):
        raise CheckpointError(
            f'it has {num_blocks} blocks of {num_routes} routes and does not '
            'tell which scan directions they are; known are those of '
            f'{known[0]} blocks of {known[1]}'
        )
