"""Visual state-space models for OpenMMLab.

Importing the package registers its backbones in MMEngine's root ``MODELS``,
its ops, safe, converting checkpoint loaders, and the names of its models for
MMPretrain and the libraries' inferencers; it imports none of mmdet,
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
from .utils.model_index import register_model_names
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

register_model_names()
