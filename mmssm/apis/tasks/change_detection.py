"""Change detection: segmentation of image pairs, with mmseg."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from PIL import Image

from mmssm.datasets import LoadImagePair
from mmssm.engine import ChangeVisualizationHook
from mmssm.visualization.palette import Classes
from mmssm.visualization.pictures import CHANGED, draw_changes, percent
from mmssm.visualization.task_sheets import change_sheet

from ..images import read_pair
from .base import Results
from .segmentation import Segmentation


class ChangeDetection(Segmentation):
    """Changes from an earlier image to a later one."""

    name = 'change detection'
    model = 'a change detector'
    takes_pairs = True

    def picture_hook(self, cfg: Config, folder: Path) -> Hook:
        """Draw both images; mmseg's visualizer draws only one."""
        return ChangeVisualizationHook(str(folder))

    def input_shape(self, cfg: Config) -> tuple[int, int]:
        """The size of a training crop."""
        crop = (cfg.model.get('data_preprocessor') or {}).get('size')
        return tuple(crop) if crop else super().input_shape(cfg)

    def read(self, paths: tuple[Path, ...]) -> np.ndarray:
        """Read a pair of files."""
        return read_pair(*paths)

    def read_test_image(self, info: dict) -> np.ndarray:
        """Both images of a pair."""
        return LoadImagePair()(info)['img']

    def draw_label_map(
        self,
        image: np.ndarray,
        labels: np.ndarray,
        classes: Classes,
        rows: list[dict],
    ) -> Image.Image:
        """Draw both images, and what changed."""
        return draw_change_map(image, labels, rows)

    def draw_truth(
        self, results: Results, classes: Classes | None
    ) -> Image.Image:
        """Draw both images and what changed."""
        return change_sheet(results, with_prediction=False)

    def draw_results(
        self, results: Results, classes: Classes | None, score_thr: float
    ) -> Image.Image:
        """Draw both images, the truth, and the prediction with its errors."""
        return change_sheet(results)


def draw_change_map(
    pair: np.ndarray, labels: np.ndarray, rows: list[dict]
) -> Image.Image:
    """Draw both images, and what changed.

    Args:
        pair (np.ndarray): (H, W, 6) uint8.
        labels (np.ndarray): (H, W), 0 where nothing changed.
        rows (list[dict]): ``label``, ``name`` and ``share`` of the classes in
            the pair.
    """
    lines = [
        (
            CHANGED if row['label'] else None,
            row['name'],
            percent(row['share']),
        )
        for row in rows
    ]
    return draw_changes(pair, labels, lines)
