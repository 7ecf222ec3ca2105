"""Position tables, resized to maps of other sizes."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmssm.utils import UserError

# Angles count rows and columns of a 14 x 14 map, which an image of 224 x 224
# pixels has. Other maps are scaled to it.
_GRID_SIDE = 14


def resize_table(
    table: Tensor, grid: tuple[int, int], to: tuple[int, int]
) -> Tensor:
    """Resize a table of positions to another grid (bicubic).

    Args:
        table (Tensor): (..., H * W, C), row after row.
        grid (tuple[int, int]): Its rows and columns, H and W.
        to (tuple[int, int]): The rows and columns wanted, H' and W'.

    Returns:
        Tensor: (..., H' * W', C); ``table`` itself if the grids are equal.
    """
    if tuple(grid) == tuple(to):
        return table
    maps = table.reshape(-1, *grid, table.shape[-1]).permute(0, 3, 1, 2)
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    maps = F.interpolate(maps, to, mode='bicubic', align_corners=False)
    maps = maps.flatten(2).transpose(1, 2).to(table.dtype)
    return maps.reshape(*table.shape[:-2], -1, table.shape[-1])


def resize_position_embedding(
    table: Tensor,
    grid: tuple[int, int],
    to: tuple[int, int],
    class_token: bool,
) -> Tensor:
    """:func:`resize_table` for a table that may have a class token's entry.

    That entry stays as it is, in the middle.

    Args:
        table (Tensor): (1, H * W, C), or (1, H * W + 1, C) with a class
            token's entry at index ``H * W // 2``.
        grid (tuple[int, int]): Its rows and columns, H and W.
        to (tuple[int, int]): The rows and columns wanted, H' and W'.
        class_token (bool): Whether there is a class token's entry.

    Returns:
        Tensor: (1, H' * W', C), or (1, H' * W' + 1, C) with a class token's
        entry at index ``H' * W' // 2``.
    """
    if tuple(grid) == tuple(to) or not class_token:
        return resize_table(table, grid, to)
    middle = grid[0] * grid[1] // 2
    patches = torch.cat([table[:, :middle], table[:, middle + 1 :]], 1)
    patches = resize_table(patches, grid, to)
    return insert_in_middle(patches, table[:, middle : middle + 1])


def insert_in_middle(tokens: Tensor, token: Tensor) -> Tensor:
    """Insert (B, 1, C) at index ``L // 2`` of (B, L, C): (B, L + 1, C)."""
    middle = tokens.shape[1] // 2
    return torch.cat([tokens[:, :middle], token, tokens[:, middle:]], 1)


def without_middle(tokens: Tensor) -> Tensor:
    """The reverse of :func:`insert_in_middle`: (B, L + 1, C) -> (B, L, C)."""
    middle = (tokens.shape[1] - 1) // 2
    return torch.cat([tokens[:, :middle], tokens[:, middle + 1 :]], 1)


class RotaryPositions(BaseModule):
    """Rotate pairs of channels by angles that grow with row and column.

    Two-dimensional rotary embedding as in `EVA-02
    <https://arxiv.org/abs/2303.11331>`_: half of the channels are rotated by
    the row, half by the column. For maps of another size than ``grid``, the
    tables of cosines and sines are resized, as in LocalVim; angles are not
    computed again.

    Args:
        embed_dims (int): Channels, a multiple of 4.
        grid (tuple[int, int]): Rows and columns of the tables.

    Raises:
        UserError: If ``embed_dims`` is no multiple of 4.
    """

    def __init__(self, embed_dims: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if embed_dims % 4:
            raise UserError(
                'rotary positions turn pairs of channels in two directions: '
                f'embed_dims must be a multiple of 4, got {embed_dims}'
            )
        half = embed_dims // 2
        rates = 10000.0 ** (-torch.arange(0, half, 2) / half)
        rows, columns = (
            torch.arange(side) / side * _GRID_SIDE for side in grid
        )
        angles = torch.cat(
            torch.broadcast_tensors(
                (rows[:, None] * rates)[:, None],
                (columns[:, None] * rates)[None],
            ),
            -1,
        )
        angles = angles.repeat_interleave(2, -1).flatten(0, 1)
        self.grid = (grid[0], grid[1])
        self.register_buffer('cos', angles.cos())
        self.register_buffer('sin', angles.sin())

    def tables(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (H * W, C) for a map of any size."""
        to = (height, width)
        return (
            resize_table(self.cos, self.grid, to),
            resize_table(self.sin, self.grid, to),
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate tokens (B, L, C) by :meth:`tables` (L, C)."""
        rotated = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
        return x * cos + rotated * sin
