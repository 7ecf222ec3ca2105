"""The mini detection set as an mmdet dataset."""

import time

from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS

from .build import ensure_root
from .coco import write_coco
from .digits import CLASSES


def build_mini_coco(root: str) -> None:
    """Build the detection set in ``root`` unless it is there already."""
    start = time.monotonic()
    if ensure_root(root, write_coco):
        print(f'built {root} in {time.monotonic() - start:.0f} s', flush=True)


@DATASETS.register_module()
class MiniCocoDataset(CocoDataset):
    """Scenes of handwritten digits, with boxes and instance masks.

    The folder ``data_root`` is built when it is first used (a few seconds). It
    holds 600 training scenes (``annotations/train.json``, ``train/``) and 150
    test scenes with digits by other writers (``annotations/test.json``,
    ``test/``). Takes the arguments of mmdet's ``CocoDataset``.
    """

    METAINFO = dict(
        classes=CLASSES,
        palette=[
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
        ],
    )

    def load_data_list(self) -> list[dict]:
        """Build the data if need be, then load it."""
        build_mini_coco(self.data_root)
        return super().load_data_list()
