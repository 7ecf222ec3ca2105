"""Pictures of a test: every image with its truth and its prediction."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from mmssm.visualization.picture_names import PictureNames

# Draws an image, (H, W, 3) uint8, red-green-blue, and writes it to a path.
Draw = Callable[[Visualizer, np.ndarray, BaseDataElement, str], None]


class PictureHook(Hook):
    """Draw every image of a test with the library's visualizer.

    A picture has its image's path below the folder that all test images
    share, so that pictures of one name do not replace each other. Its suffix
    is ``.jpg`` for a JPEG image, else ``.png``. Images without a file are
    numbered. With several processes, only the first one draws its images.

    Args:
        folder (Path): The folder for the pictures.
        draw (Callable): Draws one image.
    """

    def __init__(self, folder: Path, draw: Draw) -> None:
        self.folder = folder
        self._draw = draw
        self._names = PictureNames()

    def before_test(self, runner: Runner) -> None:
        """Find the folder that all test images share."""
        self._names = PictureNames(runner.test_dataloader.dataset)

    @master_only
    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Draw a batch."""
        for number, sample in enumerate(outputs or ()):
            path = sample.get('img_path')
            if path is None:
                image = _given_image(data_batch['inputs'], number)
            else:
                image = mmcv.imread(path, channel_order='rgb')
            name, suffix = self._names.take(path)
            as_jpeg = suffix.lower() in ('.jpg', '.jpeg')
            name += '.jpg' if as_jpeg else '.png'
            target = str(self.folder / name)
            self._draw(runner.visualizer, image, sample, target)


def use_visualizer(cfg: Config, kind: str) -> None:
    """Set the visualizer of a config that has none."""
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type=kind)


def hook_settings(cfg: Config) -> dict:
    """The settings of the config's own hook for pictures."""
    return (cfg.get('default_hooks') or {}).get('visualization') or {}


def _given_image(inputs: torch.Tensor | list, number: int) -> np.ndarray:
    """An image of a batch; with augmentation, its first view."""
    first = inputs[0]
    if not isinstance(first, torch.Tensor) or first.ndim == 4:
        inputs = first
    image = inputs[number]
    image = image.expand(3, *image.shape[1:])  # some are gray
    return image.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
