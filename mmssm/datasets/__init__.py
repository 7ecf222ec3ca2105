"""Datasets and transforms, registered in mmengine's root registries."""

from .levir_cd_plus import LEVIRCDPlusDataset
from .mini import (
    MiniADE20KDataset,
    MiniChangeDataset,
    MiniCocoDataset,
    MiniImageNetDataset,
)
from .pair_transforms import LoadChangeLabel, LoadImagePair

__all__ = [
    'LEVIRCDPlusDataset',
    'LoadChangeLabel',
    'LoadImagePair',
    'MiniADE20KDataset',
    'MiniChangeDataset',
    'MiniCocoDataset',
    'MiniImageNetDataset',
]
