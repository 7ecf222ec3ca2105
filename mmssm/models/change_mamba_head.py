"""The decoder of `ChangeMamba <https://arxiv.org/abs/2404.03425>`_."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmseg.models.backbones.resnet import BasicBlock
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from mmssm.utils import UserError

from ..layers import SS2D, VSSBlock
from ..scans import CROSS


@MODELS.register_module()
class ChangeMambaHead(BaseDecodeHead):
    """Relate the maps of two images by scanning them together.

    Each stage fuses its pair of maps with :class:`PairFusion`. The result is
    added to the upsampled result of the next deeper stage and goes through a
    residual block; the deepest stage has neither. The loss is set as in every
    head of mmseg; ChangeMamba's is cross-entropy plus 0.75 of Lovasz softmax.

    Args:
        in_channels (Sequence[int]): Channels of one image's map, by stage,
            the shallowest first. The maps of pairs have twice as many.
        channels (int): Channels of all maps in the head. Defaults to 128.
        num_classes (int): Classes. Defaults to 2, unchanged and changed.
        d_state (int): States per channel of the blocks' :class:`SS2D`, as in
            the backbone. Defaults to 1.
        ssm_ratio (float): Inner channels of the scan / ``channels``. Defaults
            to 1.
        mlp_ratio (float): Hidden channels of the FFN / ``channels``; 0 for no
            FFN. Defaults to 4.
        gate (bool): Whether a second branch gates the scan. Defaults to
            False.
        conv_bias (bool): Bias of the depthwise convolution. Defaults to
            False.
        ssm_init (str): 's4d' or 'uniform'. Defaults to 's4d'.
        routes (Sequence[str]): See :mod:`mmssm.scans`. Defaults to VMamba's
            cross-scan.
        drop_path_rate (float): Stochastic depth of every block. Defaults to
            0.1.
        with_cp (bool): Recompute blocks in backward to save memory. Defaults
            to False.
        in_index (Sequence[int], optional): Indices of the maps to use, one per
            stage. Defaults to the first ones.
        norm_cfg (dict, optional): Norm after convolutions. Defaults to batch
            norm.
        dropout_ratio (float): Dropout before the classifier. Defaults to 0.
        init_cfg (dict, optional): Defaults to PyTorch's own initialization.
        **kwargs: Other arguments of mmseg's ``BaseDecodeHead``:
            ``loss_decode``, ``ignore_index``, ``align_corners`` and so on.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 128,
        *,
        num_classes: int = 2,
        d_state: int = 1,
        ssm_ratio: float = 1.0,
        mlp_ratio: float = 4.0,
        gate: bool = False,
        conv_bias: bool = False,
        ssm_init: str = 's4d',
        routes: str | Sequence[str] = CROSS,
        drop_path_rate: float = 0.1,
        with_cp: bool = False,
        in_index: Sequence[int] | None = None,
        norm_cfg: dict | None = None,
        dropout_ratio: float = 0.0,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        norm_cfg = norm_cfg or dict(type='BN')
        # One output per class; without it, mmseg warns about two classes.
        kwargs.setdefault('out_channels', num_classes)
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            in_index=in_index or list(range(len(in_channels))),
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            dropout_ratio=dropout_ratio,
            init_cfg=init_cfg,
            **kwargs,
        )

        def build_block() -> VSSBlock:
            mixer = SS2D(
                channels,
                d_state=d_state,
                ssm_ratio=ssm_ratio,
                gate=gate,
                conv_bias=conv_bias,
                ssm_init=ssm_init,
                routes=routes,
            )
            return VSSBlock(
                channels, mixer, mlp_ratio, drop_path_rate, with_cp
            )

        self.fusions = nn.ModuleList(
            PairFusion(width, channels, build_block, norm_cfg, self.act_cfg)
            for width in self.in_channels
        )
        self.residuals = nn.ModuleList(
            BasicBlock(channels, channels, norm_cfg=norm_cfg)
            for _ in self.in_channels[:-1]
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Pairs' maps, (B, 2 C_i, H_i, W_i) -> logits (B, classes, H_0, W_0).

        Raises:
            UserError: A map does not have twice its ``in_channels``.
        """
        pairs = self._transform_inputs(inputs)
        self._check(pairs)
        *shallower, x = [fuse(pair) for fuse, pair in zip(self.fusions, pairs)]
        for fused, residual in zip(
            reversed(shallower), reversed(self.residuals)
        ):
            x = resize(
                x,
                size=fused.shape[2:],
                mode='bilinear',
                align_corners=self.align_corners,
            )
            x = residual(x + fused)
        return self.cls_seg(x)

    def _check(self, pairs: Sequence[Tensor]) -> None:
        found = [pair.shape[1] for pair in pairs]
        wanted = [2 * width for width in self.in_channels]
        if found != wanted:
            raise UserError(
                f'ChangeMambaHead has in_channels={list(self.in_channels)} '
                f'and takes pairs of maps, {wanted} channels, but got '
                f'{found}; use it in a ChangeDetector, with the channels of '
                "its backbone's maps as in_channels"
            )


class PairFusion(BaseModule):
    """Fuse two maps into one, with scans over three arrangements of both.

    - ``cat``: one map with the channels of both images;
    - ``interleave``: one map twice as wide, in which the images' columns
      alternate;
    - ``split``: one map twice as wide, the images side by side.

    Each is projected and goes through a block. The wide maps are split again
    into the columns of the two images. The five maps are merged by a 1 x 1
    convolution with norm and activation.

    Args:
        in_channels (int): Channels of one image's map.
        channels (int): Channels of the blocks and of the result.
        build_block (Callable): Returns a new block, which takes and returns
            (B, H, W, C) of any size.
        norm_cfg (dict): Norm after the convolution.
        act_cfg (dict): Activation after the norm.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        build_block: Callable[[], nn.Module],
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.cat = nn.Sequential(
            nn.Linear(2 * in_channels, channels), build_block()
        )
        self.interleave = nn.Sequential(
            nn.Linear(in_channels, channels), build_block()
        )
        self.split = nn.Sequential(
            nn.Linear(in_channels, channels), build_block()
        )
        self.merge = ConvModule(
            5 * channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg
        )

    def forward(self, pair: Tensor) -> Tensor:
        """(B, 2 C, H, W), the earlier image first -> (B, channels, H, W)."""
        pair = pair.permute(0, 2, 3, 1)
        before, after = pair.chunk(2, -1)
        alternating = self.interleave(alternate_columns(before, after))
        side_by_side = self.split(torch.cat((before, after), 2))
        maps = (
            self.cat(pair),
            *part_columns(alternating),
            *side_by_side.chunk(2, 2),
        )
        return self.merge(torch.cat(maps, -1).permute(0, 3, 1, 2))


def alternate_columns(before: Tensor, after: Tensor) -> Tensor:
    """Two maps (B, H, W, C) -> one (B, H, 2 W, C), columns alternating."""
    return torch.stack((before, after), 3).flatten(2, 3)


def part_columns(both: Tensor) -> tuple[Tensor, Tensor]:
    """One map (B, H, 2 W, C) -> its even and its odd columns."""
    return both[:, :, ::2], both[:, :, 1::2]
