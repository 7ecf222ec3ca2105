"""Datasets, registered in mmengine's root registry."""

from .mini import MiniCocoDataset

__all__ = ['MiniCocoDataset']
