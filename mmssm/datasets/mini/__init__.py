"""Small datasets of real handwritten digits, built where they are used."""

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
