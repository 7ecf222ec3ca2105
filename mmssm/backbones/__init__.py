"""Backbones, registered in MMEngine's root ``MODELS``."""

from .vmamba import VMamba

__all__ = ['VMamba']
