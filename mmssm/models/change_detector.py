"""A segmentor for changes between two images of one place."""

import torch
from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder
from torch import Tensor

from mmssm.utils import UserError


@MODELS.register_module()
class ChangeDetector(EncoderDecoder):
    """Encode both images of a pair with one backbone, then decode the pair.

    A pair is an image of twice the channels, the earlier image's first (see
    :class:`mmssm.datasets.LoadImagePair`). Its features are pairs too: map i
    is (B, 2 C_i, H_i, W_i), the earlier image's channels first. So mmseg's
    transforms, sliding windows, test-time augmentation, hooks and heads work
    on pairs; heads need twice the channels.

    The arguments are those of ``mmseg.models.EncoderDecoder``: ``backbone``
    and ``neck`` for one image, ``decode_head`` for pairs of their maps, such
    as :class:`ChangeMambaHead`.
    """

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Encode both images, in one batch.

        Args:
            inputs (Tensor): Pairs, (B, 6, H, W).

        Returns:
            tuple[Tensor, ...]: (B, 2 C_i, H_i, W_i) for each of the maps
            (C_i, H_i, W_i) that backbone and neck compute for an image.

        Raises:
            UserError: The number of channels is odd.
        """
        if inputs.shape[1] % 2:
            raise UserError(
                f'{type(self).__name__} takes pairs of images, one after the '
                f'other in the channels, but got {inputs.shape[1]} channels; '
                'load the images with LoadImagePair'
            )
        maps = super().extract_feat(torch.cat(inputs.chunk(2, 1)))
        return tuple(torch.cat(both.chunk(2), 1) for both in maps)
