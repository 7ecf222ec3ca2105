"""Small datasets of real handwritten digits, built on first use."""

from .dataset import (
    WRITERS,
    MiniADE20KDataset,
    MiniChangeDataset,
    MiniCocoDataset,
    MiniImageNetDataset,
    build_mini,
)

__all__ = [
    'WRITERS',
    'MiniADE20KDataset',
    'MiniChangeDataset',
    'MiniCocoDataset',
    'MiniImageNetDataset',
    'build_mini',
]
