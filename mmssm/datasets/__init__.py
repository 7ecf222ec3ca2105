"""Datasets, registered in mmengine's root registry."""

from .mini import MiniADE20KDataset, MiniCocoDataset, MiniImageNetDataset

__all__ = ['MiniADE20KDataset', 'MiniCocoDataset', 'MiniImageNetDataset']
