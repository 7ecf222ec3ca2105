"""Visual state-space models for OpenMMLab.

Importing the package registers its backbones, hooks and optimizer constructor
in MMEngine's root registries, its ops, and safe, converting checkpoint
loaders; it imports none of mmdet, mmsegmentation or mmpretrain.
"""

from . import checkpoint, engine  # noqa: F401  (for what they register)
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
