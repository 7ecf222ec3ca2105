"""The assembly that backbones of one scale share."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import MambaBlock, MambaMixer, PatchTokens, RotaryPositions
from ..layers.positions import (
    insert_in_middle,
    resize_position_embedding,
    resize_table,
    without_middle,
)
from .base import Arch, SSMBackbone

OUT_TYPES = ('featmap', 'avg_featmap', 'cls_token')


class PlainBackbone(SSMBackbone):
    """Patches to tokens, positions, then blocks that keep the tokens' number.

    A subclass fills :attr:`arch_settings`, whose rows have ``embed_dims``,
    ``depth``, ``patch_size``, ``patch_stride``, ``class_token``, ``rope`` and
    ``drop_path_rate`` at least, and says what a mixer and a norm are. The
    arguments are the subclass's too.

    Args:
        arch (str | dict): A row of :attr:`arch_settings`, or a dict of its
            fields.
        img_size (int | tuple[int, int]): Height and width whose positions
            are learnt; those of other images are interpolated. Defaults to
            224.
        in_channels (int): Image channels. Defaults to 3.
        out_type (str, optional): 'featmap', 'avg_featmap' or 'cls_token'.
            Defaults to what a classifier reads: 'cls_token' where there is
            one, else 'avg_featmap'.
        drop_path_rate (float, optional): Stochastic depth of the last block;
            it grows linearly from 0. Defaults to the arch's own.
        out_indices (Sequence[int]): Layers to return, from 0; negative ones
            count from the end. Layers after the last of them are not run:
            to train without the model's last ones in several processes, set
            ``find_unused_parameters``. Defaults to (-1, ).
        frozen_stages (int): Stem, positions and the layers up to this one do
            not learn. Defaults to -1, none.
        norm_eval (bool): Keep batch norms in eval mode. Defaults to False.
        with_cp (bool): Recompute blocks in backward to save memory. Defaults
            to False.
        init_cfg (dict | list[dict], optional): Defaults to the originals'
            initialisation.
    """

    def __init__(
        self,
        arch: Arch = 'tiny',
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        out_type: str | None = None,
        drop_path_rate: float | None = None,
        out_indices: Sequence[int] = (-1,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        name, settings = self.parse_arch(arch)
        depth, embed_dims = settings['depth'], settings['embed_dims']
        super().__init__(
            _from_the_start(out_indices, depth),
            depth,
            frozen_stages,
            norm_eval,
            init_cfg,
        )
        self.arch_name, self.arch = name, settings
        self.with_cp = with_cp
        self.has_class_token = settings['class_token']
        self.out_type = self._check_out_type(out_type, depth)
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        self.stem = PatchTokens(
            in_channels,
            embed_dims,
            settings['patch_size'],
            settings['patch_stride'],
        )
        self._build_positions(img_size, embed_dims)
        rates = np.linspace(0, drop_path_rate, depth).tolist()
        self.layers = nn.ModuleList(
            MambaBlock(
                self._build_norm(embed_dims),
                self._build_mixer(i, embed_dims),
                rate,
                with_cp,
            )
            for i, rate in enumerate(rates)
        )
        if self.out_type == 'featmap':
            for i in self.out_indices:
                self.add_module(f'norm{i}', nn.LayerNorm(embed_dims))
        else:
            self.norm = self._build_norm(embed_dims)
        self._freeze_stages()

    def _check_out_type(self, out_type: str | None, depth: int) -> str:
        if out_type is None:
            out_type = 'cls_token' if self.has_class_token else 'avg_featmap'
        name = type(self).__name__
        if out_type not in OUT_TYPES:
            raise ValueError(
                f'{name}: out_type must be one of {", ".join(OUT_TYPES)}, got '
                f'{out_type!r}'
            )
        if out_type == 'cls_token' and not self.has_class_token:
            raise ValueError(
                f"{name}: out_type='cls_token' needs an arch with a class "
                "token; this one's features are 'avg_featmap' or 'featmap'"
            )
        if out_type != 'featmap' and self.out_indices != (depth - 1,):
            raise ValueError(
                f'{name}: out_type={out_type!r} is made of the last layer '
                f'({depth - 1}), got out_indices={self.out_indices}; for the '
                "maps of layers, set out_type='featmap'"
            )
        return out_type

    def _build_positions(
        self, img_size: int | tuple[int, int], embed_dims: int
    ) -> None:
        self.grid = self.stem.grid(*self._sides(img_size))
        tokens = self.grid[0] * self.grid[1] + int(self.has_class_token)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, embed_dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.cls_token = None
        if self.has_class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.rope = None
        if self.arch['rope']:
            if self.has_class_token:
                raise ValueError(
                    f'{type(self).__name__}: rotary positions turn patches '
                    'only; set class_token or rope to False'
                )
            self.rope = RotaryPositions(embed_dims, self.grid)

    def _sides(self, img_size: int | tuple[int, int]) -> tuple[int, int]:
        sides = (img_size,) * 2 if isinstance(img_size, int) else img_size
        fits = isinstance(sides, Sequence) and len(sides) == 2
        if not fits or not all(isinstance(s, int) and s > 0 for s in sides):
            raise ValueError(
                f'{type(self).__name__}: img_size must be a number of pixels '
                f'or a height and a width, got {img_size!r}'
            )
        return tuple(sides)

    def _build_mixer(self, index: int, embed_dims: int) -> MambaMixer:
        """What layer ``index`` mixes tokens with."""
        raise NotImplementedError

    def _build_norm(self, embed_dims: int) -> nn.Module:
        """The norm before a mixer and after the last block."""
        raise NotImplementedError

    def _mixers_map(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns on which mixers see a map's tokens."""
        return height, width

    def _frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        parts = [self.stem, self.pos_embed]
        if self.cls_token is not None:
            parts.append(self.cls_token)
        return parts + list(self.layers[: self.frozen_stages + 1])

    def _adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fit the file's positions, of a square image, to this grid.

        A file does not tell its grid. A table of as many positions as this
        model's is taken as it is.
        """
        fitted = dict(weights)
        own = self.state_dict()
        for name in ('pos_embed', 'rope.cos', 'rope.sin'):
            table = weights.get(name)
            if table is None or table.dim() < 2 or name not in own:
                continue
            if table.shape == own[name].shape:
                continue
            token = name == 'pos_embed' and self.has_class_token
            side = round((table.shape[-2] - token) ** 0.5)
            if side * side + token == table.shape[-2]:
                fitted[name] = (
                    resize_position_embedding(
                        table, (side, side), self.grid, token
                    )
                    if name == 'pos_embed'
                    else resize_table(table, (side, side), self.grid)
                )
        return fitted

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) -> features.

        For out_type 'featmap', one map (B, C, rows, columns) per
        ``out_indices``, with a row and a column for every patch: what the
        layer's mixer adds, normed, without the class token. Else one (B, C).
        """
        x = self.stem(x)
        height, width = x.shape[1:3]
        x = x.flatten(1, 2)
        if self.cls_token is not None:
            x = insert_in_middle(x, self.cls_token.expand(len(x), -1, -1))
        x = x + resize_position_embedding(
            self.pos_embed, self.grid, (height, width), self.has_class_token
        )
        if self.rope is not None:
            tables = self.rope.tables(height, width)
        outs = []
        for i, layer in enumerate(self.layers[: max(self.out_indices) + 1]):
            if self.rope is not None:
                x = self.rope.rotate(x, *tables)
            x, mixed = layer(x, *self._mixers_map(height, width))
            if self.out_type == 'featmap' and i in self.out_indices:
                outs.append(self._to_map(i, mixed, height, width))
        return tuple(outs) or (self._pool(self.norm(x)),)

    def _to_map(
        self, index: int, tokens: Tensor, height: int, width: int
    ) -> Tensor:
        tokens = getattr(self, f'norm{index}')(tokens)
        if self.has_class_token:
            tokens = without_middle(tokens)
        return tokens.mT.unflatten(2, (height, width)).contiguous()

    def _pool(self, tokens: Tensor) -> Tensor:
        if self.out_type == 'cls_token':
            return tokens[:, (tokens.shape[1] - 1) // 2]
        if self.has_class_token:
            tokens = without_middle(tokens)
        return tokens.mean(1)


def _from_the_start(indices: Sequence[int], depth: int) -> Sequence[int]:
    """Negative layer numbers as positive ones; the rest is checked later."""
    if not isinstance(indices, Sequence):
        return indices
    return tuple(i + depth if -depth <= i < 0 else i for i in indices)
