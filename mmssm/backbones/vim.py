"""Vim.

`Vision Mamba: Efficient Visual Representation Learning with Bidirectional
State Space Model <https://arxiv.org/abs/2401.09417>`_.
"""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from ..layers import MambaMixer
from ..layers.norms import RMSNorm
from ..scans import BIDIRECTIONAL
from .base import Arch, InitCfg
from .plain import PlainBackbone

_TINY = dict(
    embed_dims=192,
    depth=24,
    patch_size=16,
    patch_stride=16,
    d_state=16,
    ssm_ratio=2.0,
    class_token=True,
    rope=False,
    drop_path_rate=0.0,
)


@MODELS.register_module()
class Vim(PlainBackbone):
    """Layers of bidirectional Mamba mixers on patches of 16 x 16 pixels.

    A class token is in the middle of the sequence. Each layer scans it
    forward and backward, with weights for each direction, and takes the mean.
    All arguments but ``arch`` are those of
    :class:`mmssm.backbones.PlainBackbone`.

    Args:
        arch (str | dict): 'tiny', 'small' or 'base', or a dict of the fields
            of :attr:`arch_settings`; fields left out are those of ``tiny``:

            - **embed_dims** (int): Channels.
            - **depth** (int): Layers.
            - **patch_size**, **patch_stride** (int): Pixels of a patch's
              side, and from one patch to the next. The models that the
              authors finetune at finer granularity have a stride of 8.
            - **d_state** (int): States per channel.
            - **ssm_ratio** (float): Inner channels of the mixer / channels.
            - **class_token** (bool): Whether there is a class token.
            - **rope** (bool): Whether every layer rotates its tokens by
              their positions.
            - **drop_path_rate** (float): Stochastic depth of the last layer;
              it grows linearly from 0.

    Example:
        >>> model = Vim('tiny')
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 224, 224))]
        [(1, 192)]
    """

    arch_settings = dict(
        tiny=_TINY,
        small=dict(_TINY, embed_dims=384, drop_path_rate=0.05),
        base=dict(_TINY, embed_dims=768, drop_path_rate=0.1),
    )

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
            img_size=img_size,
            in_channels=in_channels,
            out_type=out_type,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        _lecun_normal(self.stem.conv)

    def _build_norm(self, embed_dims: int) -> nn.Module:
        return RMSNorm(embed_dims)

    def _build_mixer(self, index: int, embed_dims: int) -> MambaMixer:
        return MambaMixer(
            embed_dims,
            routes=BIDIRECTIONAL,
            merge='mean',
            d_state=self.arch['d_state'],
            ssm_ratio=self.arch['ssm_ratio'],
            out_proj_scale=self.arch['depth'] ** -0.5,
        )

    def _mixer_size(self, height: int, width: int) -> tuple[int, int]:
        """One row of all tokens, including the class token."""
        return 1, height * width + int(self.has_class_token)


def _lecun_normal(conv: nn.Conv2d) -> None:
    """Draw weights from a normal distribution cut at two standard deviations.

    Their variance is 1 / fan-in.
    """
    # A cut normal distribution has this part of its standard deviation left.
    std = conv.weight[0].numel() ** -0.5 / 0.87962566103423978
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(conv.bias)
