"""Backbones, registered in MMEngine's root ``MODELS``."""

from .spatial_mamba import SpatialMamba
from .vmamba import VMamba

__all__ = ['SpatialMamba', 'VMamba']
