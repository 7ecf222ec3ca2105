"""Visual state-space models for OpenMMLab.

Importing the package registers its backbones, hooks and optimizers in
MMEngine's root registries, its ops, safe, converting checkpoint loaders, and
the names of its models for MMPretrain and the libraries' inferencers. It
imports none of mmdet, mmsegmentation or mmpretrain.
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
from .layers.packed import optimize_for_inference
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
    'optimize_for_inference',
]

register_model_names()
