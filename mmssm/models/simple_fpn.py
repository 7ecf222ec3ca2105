"""Build a feature pyramid from one map."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmssm.utils import UserError

_RESCALED_LEVELS = 4


@MODELS.register_module()
class SimpleFPN(BaseModule):
    """The neck of `ViTDet <https://arxiv.org/abs/2203.16527>`_.

    It makes four maps of 4, 2, 1 and 1/2 times the size of a plain backbone's
    last map, with a 1 x 1 and a 3 x 3 convolution each. Further levels take
    every second pixel of the level before.

    Args:
        in_channels (int): Channels of the map, a multiple of 4.
        out_channels (int): Channels of every level. Defaults to 256.
        num_outs (int): Number of levels, 4 or more. Defaults to 5.
        norm_cfg (dict): Norm of the convolutions and of the largest level.
            Defaults to a norm over channels, ``mmpretrain.LN2d``.
        init_cfg (dict | list[dict], optional): Defaults to PyTorch's own
            initialization.

    Raises:
        UserError: ``in_channels`` or ``num_outs`` does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        num_outs: int = 5,
        norm_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if in_channels % 4:
            raise UserError(
                'SimpleFPN: in_channels must be a multiple of 4, since the '
                f'largest level has a quarter of them; got {in_channels}'
            )
        if num_outs < _RESCALED_LEVELS:
            raise UserError(
                f'SimpleFPN: num_outs must be {_RESCALED_LEVELS} or more, got '
                f'{num_outs}'
            )
        self.num_outs = num_outs
        norm_cfg = norm_cfg or dict(type='mmpretrain.LN2d')
        half, quarter = in_channels // 2, in_channels // 4
        self.rescale = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(in_channels, half, 2, 2),
                    build_norm_layer(norm_cfg, half)[1],
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, 2),
                ),
                nn.ConvTranspose2d(in_channels, half, 2, 2),
                nn.Identity(),
                nn.MaxPool2d(2, 2),
            ]
        )
        self.convs = nn.ModuleList(
            nn.Sequential(
                _conv(channels, out_channels, 1, norm_cfg),
                _conv(out_channels, out_channels, 3, norm_cfg),
            )
            for channels in (quarter, half, in_channels, in_channels)
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One map [(B, C, H, W)] -> maps (B, out_channels, h, w).

        The first is 4 H x 4 W, and each level has half the size of the one
        before, rounded down for the fourth level and up for later ones.
        """
        if len(inputs) != 1:
            raise UserError(
                f'SimpleFPN takes one map, got {len(inputs)}; let the '
                "backbone's out_indices name one layer"
            )
        outs = [
            convs(rescale(inputs[0]))
            for rescale, convs in zip(self.rescale, self.convs)
        ]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, norm_cfg: dict
) -> ConvModule:
    return ConvModule(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        norm_cfg=norm_cfg,
        act_cfg=None,
    )
