"""Building blocks on channels-last maps (B, H, W, C) and tokens (B, L, C)."""

from .block import MambaBlock, VSSBlock
from .downsample import ConvDownsample, InvertedDownsample, PatchMerging
from .mamba_mixer import MambaMixer
from .map_mixer import MapMixer
from .positions import RotaryPositions
from .ss2d import SS2D
from .ssd2d import SSD2D
from .stem import ConvStem, PatchStem, PatchTokens, ResidualStem
from .structure_aware_ssm import StructureAwareSSM
from .tree_ssm import TreeSSM

__all__ = [
    'SS2D',
    'SSD2D',
    'ConvDownsample',
    'ConvStem',
    'InvertedDownsample',
    'MambaBlock',
    'MambaMixer',
    'MapMixer',
    'PatchMerging',
    'PatchStem',
    'PatchTokens',
    'ResidualStem',
    'RotaryPositions',
    'StructureAwareSSM',
    'TreeSSM',
    'VSSBlock',
]
