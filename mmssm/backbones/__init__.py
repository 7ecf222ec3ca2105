"""Backbones, registered in MMEngine's root ``MODELS``."""

from .fractal_mamba import FractalMamba
from .local_vim import LocalVim
from .local_vmamba import LocalVMamba
from .spatial_mamba import SpatialMamba
from .vim import Vim
from .vmamba import VMamba

__all__ = [
    'FractalMamba',
    'LocalVMamba',
    'LocalVim',
    'SpatialMamba',
    'VMamba',
    'Vim',
]
