"""The assembly that backbones of one scale share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmssm.utils import UserError

from ..layers import MambaBlock, MambaMixer, PatchTokens, RotaryPositions
from ..layers.outputs import MapNorm, ToMap
from ..layers.positions import (
    insert_in_middle,
    resize_position_embedding,
    resize_table,
    without_middle,
)
from .base import Arch, InitCfg, SSMBackbone

OUT_TYPES = ('featmap', 'avg_featmap', 'cls_token')


class PlainBackbone(SSMBackbone):
    """Patches become tokens, positions are added, then layers mix the tokens.

    All layers have the same number of tokens and channels. A subclass fills
    :attr:`arch_settings` and builds a mixer and a norm. Each row has
    ``embed_dims``, ``depth``, ``patch_size``, ``patch_stride``,
    ``class_token``, ``rope`` and ``drop_path_rate`` at least. Subclasses take
    the arguments below.

    Args:
        arch (str | dict): A row of :attr:`arch_settings`, or a dict of its
            fields; fields left out are those of the first row.
        img_size (int | tuple[int, int]): Height and width of the images whose
            positions are learned; for images of other sizes positions are
            interpolated. Defaults to 224.
        in_channels (int): Image channels. Defaults to 3.
        out_type (str, optional): 'featmap' (maps of ``out_indices``),
            'avg_featmap' (the mean token of the last layer) or 'cls_token'.
            Defaults to what a classifier reads: 'cls_token' if there is a
            class token, else 'avg_featmap'.
        drop_path_rate (float, optional): Stochastic depth of the last layer;
            it grows linearly from 0. Defaults to the arch's own.
        out_indices (int | Sequence[int]): Layers to return; negative ones
            count from the end. Layers after the last one returned are not
            run. To train such a model in several processes, set
            ``find_unused_parameters``. Defaults to (-1, ).
        frozen_stages (int): Stem, positions and the layers up to this one do
            not learn. Defaults to -1, none.
        norm_eval (bool): Keep batch norms in eval mode. Defaults to False.
        with_cp (bool): Recompute blocks in backward to save memory. Defaults
            to False.
        init_cfg (dict | list[dict], optional): OpenMMLab's initialization.
            ``dict(type='Pretrained', checkpoint=...)`` takes mmssm's files
            and those of the original authors, whole; with ``strict=False``,
            what fits. Defaults to the originals' initialization.
    """

    def __init__(
        self,
        arch: Arch = 'tiny',
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        out_type: str | None = None,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = (-1,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitCfg | None = None,
    ) -> None:
        super().__init__(
            arch=arch,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        depth, embed_dims = self.arch['depth'], self.arch['embed_dims']
        self.has_class_token = self.arch['class_token']
        self.out_type = self._parse_out_type(out_type)
        self.stem = PatchTokens(
            in_channels,
            embed_dims,
            self.arch['patch_size'],
            self.arch['patch_stride'],
        )
        self._build_positions(img_size, embed_dims)
        self.layers = nn.ModuleList(
            MambaBlock(
                self._build_norm(embed_dims),
                self._build_mixer(i, embed_dims),
                drop_path_rate=rate,
                with_cp=with_cp,
            )
            for i, rate in enumerate(self._drop_path_rates(depth))
        )
        if self.out_type == 'featmap':
            for i in self.out_indices:
                self.add_module(f'norm{i}', MapNorm(embed_dims))
        else:
            self.norm = self._build_norm(embed_dims)
            self.to_map = ToMap()
        self._freeze_stages()

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Pixels between two tokens, of each map that ``forward`` returns.

        Empty if it returns a vector.
        """
        return super().out_strides if self.out_type == 'featmap' else ()

    def _count_stages(self) -> int:
        return self.arch['depth']

    def _channels_of(self, stage: int) -> int:
        return self.arch['embed_dims']

    def _stride_of(self, stage: int) -> int:
        return self.arch['patch_stride']

    def _count_blocks(self) -> int:
        return self.arch['depth']

    def _layer_of(self, name: str) -> int | None:
        part, *rest = name.split('.')
        if part in ('stem', 'pos_embed', 'cls_token'):
            return 0
        return int(rest[0]) + 1 if part == 'layers' else None

    def _parse_out_type(self, out_type: str | None) -> str:
        if out_type is None:
            out_type = 'cls_token' if self.has_class_token else 'avg_featmap'
        name = type(self).__name__
        if out_type not in OUT_TYPES:
            raise UserError(
                f'{name}: out_type must be one of {", ".join(OUT_TYPES)}, got '
                f'{out_type!r}'
            )
        if out_type == 'cls_token' and not self.has_class_token:
            raise UserError(
                f"{name}: out_type='cls_token' needs an arch with a class "
                "token; this one's features are 'avg_featmap' or 'featmap'"
            )
        last = self.arch['depth'] - 1
        if out_type != 'featmap' and self.out_indices != (last,):
            raise UserError(
                f'{name}: out_type={out_type!r} is made of the last layer '
                f'({last}), got out_indices={self.out_indices}; for the '
                "maps of layers, set out_type='featmap'"
            )
        return out_type

    def _build_positions(
        self, img_size: int | tuple[int, int], embed_dims: int
    ) -> None:
        self.grid = self.stem.grid(*self._parse_img_size(img_size))
        length = self.grid[0] * self.grid[1] + int(self.has_class_token)
        self.pos_embed = nn.Parameter(torch.zeros(1, length, embed_dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.cls_token = None
        if self.has_class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.rope = None
        if self.arch['rope']:
            if self.has_class_token:
                raise UserError(
                    f'{type(self).__name__}: rotary positions turn patches '
                    'only; set class_token or rope to False'
                )
            self.rope = RotaryPositions(embed_dims, self.grid)

    def _parse_img_size(
        self, img_size: int | tuple[int, int]
    ) -> tuple[int, int]:
        size = (img_size,) * 2 if isinstance(img_size, int) else img_size
        fits = isinstance(size, Sequence) and len(size) == 2
        if not fits or not all(isinstance(s, int) and s > 0 for s in size):
            raise UserError(
                f'{type(self).__name__}: img_size must be a number of pixels '
                f'or a height and a width, got {img_size!r}'
            )
        return size[0], size[1]

    def _build_mixer(self, index: int, embed_dims: int) -> MambaMixer:
        """The mixer of layer ``index``."""
        raise NotImplementedError

    def _build_norm(self, embed_dims: int) -> nn.Module:
        """The norm before a mixer, and that after the last layer."""
        raise NotImplementedError

    def _mixer_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the map as mixers see it."""
        return height, width

    def _frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        parts: list[nn.Module | nn.Parameter] = [self.stem, self.pos_embed]
        if self.cls_token is not None:
            parts.append(self.cls_token)
        return parts + list(self.layers[: self.frozen_stages + 1])

    def fit_positions(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Resize the file's position tables to this model's grid.

        A file does not tell its grid. A table with as many positions as this
        model's is taken as it is; any other must be that of a square image.
        """
        adapted = dict(weights)
        own = self.state_dict()
        for name in ('pos_embed', 'rope.cos', 'rope.sin'):
            table = weights.get(name)
            if table is None or table.dim() < 2 or name not in own:
                continue
            if table.shape == own[name].shape:
                continue
            class_token = name == 'pos_embed' and self.has_class_token
            side = round((table.shape[-2] - class_token) ** 0.5)
            if side * side + class_token != table.shape[-2]:
                continue  # not square: loading will name its shape
            if name == 'pos_embed':
                adapted[name] = resize_position_embedding(
                    table, (side, side), self.grid, class_token
                )
            else:
                adapted[name] = resize_table(table, (side, side), self.grid)
        return adapted

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) -> features.

        For ``out_type='featmap'``, one map (B, C, rows, columns) per
        ``out_indices``, with one token per patch: the normed output of the
        layer's mixer, without the class token. Else one vector (B, C).

        Raises:
            UserError: If x is not a batch of images.
        """
        x = self.stem(x)
        height, width = x.shape[1:3]
        x = x.flatten(1, 2)
        if self.cls_token is not None:
            token = self.cls_token.expand(x.shape[0], -1, -1)
            x = insert_in_middle(x, token)
        x = x + resize_position_embedding(
            self.pos_embed, self.grid, (height, width), self.has_class_token
        )
        if self.rope is not None:
            tables = self.rope.tables(height, width)
        outs = []
        for i, layer in enumerate(self.layers[: max(self.out_indices) + 1]):
            if self.rope is not None:
                x = self.rope(x, *tables)
            if self.out_type == 'cls_token' and i == len(self.layers) - 1:
                x = self._pass_map(x, height, width)
            x, mixed = layer(x, *self._mixer_size(height, width))
            if self.out_type == 'featmap' and i in self.out_indices:
                patches = self._patches(mixed).unflatten(1, (height, width))
                outs.append(getattr(self, f'norm{i}')(patches).contiguous())
        if outs:
            return tuple(outs)
        x = self.norm(x)
        if self.out_type == 'cls_token':
            return (x[:, (x.shape[1] - 1) // 2],)
        return (self.to_map(self._patches(x), height, width).mean((2, 3)),)

    def _patches(self, tokens: Tensor) -> Tensor:
        """The tokens without the class token, if there is one."""
        return without_middle(tokens) if self.has_class_token else tokens

    def _pass_map(self, x: Tensor, height: int, width: int) -> Tensor:
        """The same tokens, after the patches have been a map.

        The result of the model depends on these patches only through the last
        layer: this is the last map whose gradient tells what the class token
        looks at.
        """
        middle = (x.shape[1] - 1) // 2
        patches = self.to_map(without_middle(x), height, width)
        patches = patches.flatten(2).mT
        return insert_in_middle(patches, x[:, middle : middle + 1])
