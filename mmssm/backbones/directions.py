"""Each block's routes, of `LocalMamba <https://arxiv.org/abs/2403.09338>`_.

LocalMamba calls them scan directions. The authors found these tables by a
search and released them.
"""

from collections.abc import Sequence

from mmssm.utils import UserError

from ..scans import parse_routes

Directions = str | Sequence[str | Sequence[str]]

# The routes that a search chooses from, in the order of its weights.
CANDIDATES = ('h', 'h_flip', 'v', 'v_flip', 'w2', 'w2_flip', 'w7', 'w7_flip')
SEARCH = 'search'

LOCAL_VIM_TINY = (
    'h v_flip w7 w7_flip',
    'h_flip w2_flip w7 w7_flip',
    'h h_flip v w7',
    'h h_flip v v_flip',
    'h h_flip v v_flip',
    'h h_flip v v_flip',
    'h_flip v v_flip w7',
    'h_flip v v_flip w2_flip',
    'h h_flip v v_flip',
    'h h_flip v v_flip',
    'h v v_flip w2',
    'h v v_flip w2_flip',
    'h h_flip v_flip w7',
    'h_flip v v_flip w2',
    'h h_flip v v_flip',
    'h v w2 w2_flip',
    'v v_flip w2 w7',
    'h h_flip v w2',
    'h h_flip w2_flip w7',
    'v v_flip w2 w2_flip',
)
LOCAL_VMAMBA_TINY = (
    'h h_flip w7 w7_flip',
    'h_flip v_flip w2 w2_flip',
    'h_flip v_flip w2_flip w7',
    'h_flip v v_flip w2',
    'h h_flip v_flip w2_flip',
    'h_flip v_flip w2 w2_flip',
    'h w2_flip w7 w7_flip',
    'h h_flip v v_flip',
    'h v_flip w7 w7_flip',
    'h_flip v w2 w7_flip',
    'v v_flip w2 w7_flip',
    'h h_flip v_flip w2_flip',
    'v_flip w2_flip w7 w7_flip',
    'h_flip v_flip w2_flip w7_flip',
    'h_flip v w7 w7_flip',
)
LOCAL_VMAMBA_SMALL = (
    'h v v_flip w7_flip',
    'h h_flip v w7',
    'h_flip v v_flip w7',
    'h_flip v w2_flip w7',
    'h_flip v w2_flip w7',
    'h_flip v_flip w2 w7_flip',
    'h_flip v v_flip w7',
    'h v v_flip w7',
    'h v v_flip w7',
    'h v v_flip w7_flip',
    'h h_flip v v_flip',
    'h v v_flip w2',
    'v v_flip w2_flip w7',
    'h h_flip v w2',
    'h_flip v v_flip w7_flip',
    'h h_flip v v_flip',
    'h v v_flip w7_flip',
    'h v v_flip w7_flip',
    'h h_flip v_flip w7',
    'h_flip v_flip w2_flip w7',
    'h_flip v v_flip w7_flip',
    'v v_flip w7 w7_flip',
    'h v v_flip w7_flip',
    'h_flip v v_flip w2',
    'h v v_flip w2_flip',
    'h h_flip v w7',
    'h h_flip w7 w7_flip',
    'h v_flip w2 w2_flip',
    'h v_flip w2 w7',
    'h v v_flip w7_flip',
    'h_flip v w2_flip w7',
    'h_flip v_flip w7 w7_flip',
    'h v w7 w7_flip',
)


def parse_directions(
    directions: Directions, depth: int
) -> tuple[tuple[str, ...], ...]:
    """The route names of every block.

    Args:
        directions (str | Sequence): One entry per block, each a sequence of
            route names or a string of them with spaces in between. (So
            ``('h', 'v')`` is two blocks of one route each.) Or 'search' for
            all :data:`CANDIDATES` in every block.
        depth (int): Blocks of the model.

    Returns:
        tuple[tuple[str, ...], ...]: ``depth`` entries.

    Raises:
        UserError: If the number of entries is not ``depth``, or if an entry
            names no route, an unknown route or one route twice.
    """
    if isinstance(directions, str):
        if directions != SEARCH:
            raise UserError(
                "directions must be 'search' or a list with one entry per "
                f'block, got {directions!r}'
            )
        return (CANDIDATES,) * depth
    if not isinstance(directions, Sequence):
        raise UserError(
            "directions must be 'search' or a list with one entry per block, "
            f'got {directions!r}'
        )
    if len(directions) != depth:
        raise UserError(
            f'directions must name the routes of {depth} blocks, got '
            f'{len(directions)} entries'
        )
    parsed = []
    for block, entry in enumerate(directions):
        try:
            names = parse_routes(entry)
        except ValueError as error:
            raise UserError(f'directions of block {block}: {error}') from error
        if len(set(names)) < len(names):
            raise UserError(
                f'directions of block {block} name a route twice: '
                f'{" ".join(names)}'
            )
        parsed.append(names)
    return tuple(parsed)
