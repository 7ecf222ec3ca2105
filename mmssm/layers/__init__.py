"""Building blocks on channels-last maps (B, H, W, C)."""

from .block import VSSBlock
from .downsample import ConvDownsample, InvertedDownsample, PatchMerging
from .ss2d import SS2D
from .ssd2d import SSD2D
from .stem import ConvStem, PatchStem, ResidualStem
from .structure_aware_ssm import StructureAwareSSM

__all__ = [
    'SS2D',
    'SSD2D',
    'ConvDownsample',
    'ConvStem',
    'InvertedDownsample',
    'PatchMerging',
    'PatchStem',
    'ResidualStem',
    'StructureAwareSSM',
    'VSSBlock',
]
