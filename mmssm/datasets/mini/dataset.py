"""The mini sets as datasets of mmdet, mmseg and mmpretrain."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS
from mmpretrain.datasets import CustomDataset
from mmseg.datasets import BaseSegDataset

from ..change_dataset import ChangeDataset
from .ade20k import write_ade20k
from .build import ensure_root
from .coco import write_coco
from .digits import CLASSES
from .imagenet import write_imagenet
from .levir_cd_plus import write_levir_cd_plus

# The function that writes each folder of data/mini.
WRITERS: dict[str, Callable[[Path], None]] = dict(
    coco=write_coco,
    ade20k=write_ade20k,
    imagenet=write_imagenet,
    levir_cd_plus=write_levir_cd_plus,
)

# Colors of the digits.
PALETTE = [
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
]


def build_mini(name: str, root: str | Path) -> None:
    """Build a mini set in ``root`` unless it is there already.

    Args:
        name (str): One of :data:`WRITERS`.
        root (str | Path): The dataset's folder.

    Raises:
        ValueError: If ``root`` has other contents.
    """
    start = time.monotonic()
    if ensure_root(root, WRITERS[name]):
        print(f'built {root} in {time.monotonic() - start:.0f} s', flush=True)


class _BuiltOnFirstUse:
    """Builds the files of a mini set before they are loaded.

    Attributes:
        mini_set (str): One of :data:`WRITERS`.
        builds_its_files (bool): Tells checks of files that none are needed.
    """

    mini_set: str
    builds_its_files = True

    def load_data_list(self) -> list[dict]:
        """Build the data if necessary, then load it."""
        build_mini(self.mini_set, self.data_root)
        return super().load_data_list()


@DATASETS.register_module()
class MiniCocoDataset(_BuiltOnFirstUse, CocoDataset):
    """Scenes of handwritten digits, with boxes and instance masks.

    The folder ``data_root`` is built when it is first used (a few seconds). It
    has 600 training scenes (``annotations/train.json``, ``train/``) and 150
    test scenes with digits by other writers (``annotations/test.json``,
    ``test/``). Takes the arguments of mmdet's ``CocoDataset``.
    """

    mini_set = 'coco'
    METAINFO = dict(classes=CLASSES, palette=PALETTE)


@DATASETS.register_module()
class MiniADE20KDataset(_BuiltOnFirstUse, BaseSegDataset):
    """The same scenes with the class of each pixel: the ground or a digit.

    The folder ``data_root`` is built when it is first used (a few seconds). It
    has ``images/`` and ``annotations/`` with 600 scenes in ``training/`` and
    150 with digits by other writers in ``validation/``. Takes the arguments
    of mmseg's ``BaseSegDataset``.
    """

    mini_set = 'ade20k'
    METAINFO = dict(
        classes=('ground', *CLASSES), palette=[(120, 120, 120), *PALETTE]
    )

    def __init__(self, reduce_zero_label: bool = True, **kwargs: Any) -> None:
        super().__init__(reduce_zero_label=reduce_zero_label, **kwargs)


@DATASETS.register_module()
class MiniImageNetDataset(_BuiltOnFirstUse, CustomDataset):
    """Images of one handwritten digit each, in one folder per class.

    The folder ``data_root`` is built when it is first used (a few seconds). It
    has 4,245 images of 1,415 digits in ``train/`` and 382 of digits by other
    writers in ``val/``. Takes the arguments of mmpretrain's
    ``CustomDataset``.
    """

    mini_set = 'imagenet'
    METAINFO = dict(classes=CLASSES)


@DATASETS.register_module()
class MiniChangeDataset(_BuiltOnFirstUse, ChangeDataset):
    """Pairs of pictures of handwritten digits, some of which changed.

    The folder ``data_root`` is built when it is first used (a few seconds). It
    has 320 pairs of 96 x 96 pixels in ``train/{A,B,label}`` and 80 of
    digits by other writers in ``test/{A,B,label}``. Takes the arguments of
    :class:`ChangeDataset`.
    """

    mini_set = 'levir_cd_plus'
