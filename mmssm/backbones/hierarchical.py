"""The assembly that backbones of several stages share."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers import VSSBlock
from ..layers.outputs import MapNorm
from .base import Arch, InitCfg, SSMBackbone


class HierarchicalBackbone(SSMBackbone):
    """A stem, then stages of blocks with downsampling in between.

    A subclass fills :attr:`arch_settings` and builds a stem, a mixer and a
    downsampling layer. Each row has ``embed_dims``, ``depths`` and
    ``drop_path_rate`` at least; without ``mlp_ratio``, blocks have no FFN.
    Subclasses take the arguments below.

    Args:
        arch (str | dict): A row of :attr:`arch_settings`, or a dict of its
            fields; fields left out are those of the first row.
        in_channels (int): Image channels. Defaults to 3.
        drop_path_rate (float, optional): Stochastic depth of the last block;
            it grows linearly from 0. Defaults to the arch's own.
        out_indices (int | Sequence[int]): Stages to return; negative ones
            count from the end. Defaults to (3, ).
        frozen_stages (int): The stem and the stages up to this one do not
            learn. Defaults to -1, none.
        norm_eval (bool): Keep batch norms in eval mode. Defaults to False.
        with_cp (bool): Recompute blocks in backward to save memory. Defaults
            to False.
        init_cfg (dict | list[dict], optional): OpenMMLab's initialization.
            ``dict(type='Pretrained', checkpoint=...)`` takes mmssm's files
            and those of the original authors, whole; with ``strict=False``,
            what fits. Defaults to truncated normal linear layers, as in the
            originals.
    """

    # Whether a stage's norm comes before its downsampling, too. Then every
    # stage has one.
    norms_feed_stages = False
    # Whether blocks have convolutional positional encodings.
    cpe = False
    untrained_init_cfg = [
        dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ]

    def __init__(
        self,
        arch: Arch = 'tiny',
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = (3,),
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
            init_cfg=init_cfg or self.untrained_init_cfg,
        )
        depths, embed_dims = self.arch['depths'], self.arch['embed_dims']
        self.stem = self._build_stem(in_channels, embed_dims)
        rates = self._drop_path_rates(sum(depths))
        self.stages = nn.ModuleList()
        for i, depth in enumerate(depths):
            down = self._build_downsample(embed_dims // 2) if i else None
            first = sum(depths[:i])
            blocks = [
                self._build_block(index, embed_dims, rates[index])
                for index in range(first, first + depth)
            ]
            self.stages.append(Stage(down, blocks))
            if i in self.out_indices or self.norms_feed_stages:
                self.add_module(f'norm{i}', MapNorm(embed_dims))
            embed_dims *= 2
        self._freeze_stages()

    def _count_stages(self) -> int:
        return len(self.arch['depths'])

    def _channels_of(self, stage: int) -> int:
        return self.arch['embed_dims'] * 2**stage

    def _stride_of(self, stage: int) -> int:
        return 4 * 2**stage

    def _count_blocks(self) -> int:
        return sum(self.arch['depths'])

    def _layer_of(self, name: str) -> int | None:
        depths = self.arch['depths']
        part, *rest = name.split('.')
        if part == 'stem':
            return 0
        if part == 'stages':
            before = sum(depths[: int(rest[0])])
            return before + int(rest[2]) + 1 if rest[1] == 'blocks' else before
        feeds_stage = [f'norm{i}' for i in range(len(depths) - 1)]
        if self.norms_feed_stages and part in feeds_stage:
            return sum(depths[: feeds_stage.index(part) + 1])
        return None

    def _frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        first = self.frozen_stages + 1  # that learns
        # As in Swin, the downsampling after a frozen stage is frozen, too.
        after = [s.downsample for s in self.stages[first : first + 1]]
        return [self.stem, *self.stages[:first], *after]

    def _is_optional(self, key: str) -> bool:
        return not self.norms_feed_stages and super()._is_optional(key)

    def _build_stem(self, in_channels: int, embed_dims: int) -> nn.Module:
        """Image (B, 3, H, W) -> tokens (B, H / 4, W / 4, C)."""
        raise NotImplementedError

    def _build_mixer(self, index: int, embed_dims: int) -> nn.Module:
        """The mixer of block ``index``: (B, H, W, C) -> (B, H, W, C)."""
        raise NotImplementedError

    def _build_downsample(self, embed_dims: int) -> nn.Module:
        """(B, H, W, C) -> (B, H / 2, W / 2, 2 C)."""
        raise NotImplementedError

    def _build_block(
        self, index: int, embed_dims: int, drop_path_rate: float
    ) -> nn.Module:
        """Block ``index``, counted over all stages."""
        return VSSBlock(
            embed_dims,
            self._build_mixer(index, embed_dims),
            mlp_ratio=self.arch.get('mlp_ratio', 0.0),
            drop_path_rate=drop_path_rate,
            with_cp=self.with_cp,
            cpe=self.cpe,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> one (B, C_i, H_i, W_i) map per ``out_indices``.

        Raises:
            UserError: If the image is smaller than one patch.
        """
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices or self.norms_feed_stages:
                out = getattr(self, f'norm{i}')(x)
            if i in self.out_indices:
                outs.append(out.contiguous())
            if self.norms_feed_stages:
                x = out.permute(0, 2, 3, 1)
        return tuple(outs)


class Stage(nn.Module):
    """The downsampling before a stage, if any, and the stage's blocks."""

    def __init__(
        self, downsample: nn.Module | None, blocks: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), or (B, H / 2, W / 2, 2 C)."""
        if self.downsample is not None:
            x = self.downsample(x)
        return self.blocks(x)
