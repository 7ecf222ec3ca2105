"""Backbones, registered in MMEngine's root ``MODELS``, and their bases."""

from .fractal_mamba import FractalMamba
from .hierarchical import HierarchicalBackbone
from .local_vim import LocalVim
from .local_vmamba import LocalVMamba
from .plain import PlainBackbone
from .spatial_mamba import SpatialMamba
from .vim import Vim
from .vmamba import VMamba

__all__ = [
    'FractalMamba',
    'HierarchicalBackbone',
    'LocalVMamba',
    'LocalVim',
    'PlainBackbone',
    'SpatialMamba',
    'VMamba',
    'Vim',
]
