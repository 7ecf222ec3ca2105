"""Datasets and transforms, registered in mmengine's root registries."""

from .change_dataset import ChangeDataset
from .mini import (
    MiniADE20KDataset,
    MiniChangeDataset,
    MiniCocoDataset,
    MiniImageNetDataset,
)
from .pair_transforms import LoadChangeLabel, LoadImagePair

LEVIRCDPlusDataset = ChangeDataset  # its first name, which users' configs have

__all__ = [
    'ChangeDataset',
    'LoadChangeLabel',
    'LoadImagePair',
    'MiniADE20KDataset',
    'MiniChangeDataset',
    'MiniCocoDataset',
    'MiniImageNetDataset',
]
