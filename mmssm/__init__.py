"""Visual state-space models for OpenMMLab.

Importing the package registers its backbones in MMEngine's root ``MODELS``,
its ops, and safe, converting checkpoint loaders; it imports none of mmdet,
mmsegmentation or mmpretrain.
"""

from . import checkpoint  # noqa: F401  (registers the loaders)
from .backbones import (
    FractalMamba,
    LocalVim,
    LocalVMamba,
    SpatialMamba,
    Vim,
    VMamba,
)
from .version import __version__

__all__ = [
    'FractalMamba',
    'LocalVMamba',
    'LocalVim',
    'SpatialMamba',
    'VMamba',
    'Vim',
    '__version__',
]
