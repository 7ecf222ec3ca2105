"""A segmentor of what changed between two images of one place."""

import torch
from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder
from torch import Tensor

from mmssm.utils import UserError


@MODELS.register_module()
class ChangeDetector(EncoderDecoder):
    """Encodes both images of a pair with one backbone, then decodes the pair.

    A pair is one image of twice the channels, the earlier image's first (see
    :class:`mmssm.datasets.LoadImagePair`). Its features are such pairs, too:
    map i is (B, 2 C_i, H_i, W_i), the earlier image's channels first. So
    everything of mmseg works on pairs as on images: transforms, windows,
    test-time augmentation, hooks, and heads that take twice the channels.

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
            (C_i, H_i, W_i) that backbone and neck give of an image.

        Raises:
            UserError: The channels are not those of two images.
        """
        if inputs.shape[1] % 2:
            raise UserError(
                f'{type(self).__name__} takes pairs of images, one after the '
                f'other in the channels, but got {inputs.shape[1]} channels; '
                'load the images with LoadImagePair'
            )
        maps = super().extract_feat(torch.cat(inputs.chunk(2, 1)))
        return tuple(torch.cat(both.chunk(2), 1) for both in maps)
