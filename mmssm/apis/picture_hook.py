"""Pictures of a test: every image with its truth and its prediction."""

import os
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

from .images import free_name

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
        self._root: str | None = None
        self._taken: set[str] = set()

    def before_test(self, runner: Runner) -> None:
        """Find the folder that all test images share."""
        self._root = _common_folder(runner.test_dataloader.dataset)
        self._taken.clear()

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
            target = self.folder / self._name(path)
            self._draw(runner.visualizer, image, sample, str(target))

    def _name(self, path: str | None) -> str:
        if path is None:
            name, suffix = str(len(self._taken)), ''
        else:
            name, suffix = os.path.splitext(
                os.path.relpath(path, self._root)
                if self._root is not None
                else os.path.basename(path)
            )
        name = free_name(name, self._taken)
        self._taken.add(name.lower())
        as_jpeg = suffix.lower() in ('.jpg', '.jpeg')
        return f'{name}.jpg' if as_jpeg else f'{name}.png'


def use_visualizer(cfg: Config, kind: str) -> None:
    """Set the visualizer of a config that has none."""
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type=kind)


def hook_settings(cfg: Config) -> dict:
    """The settings of the config's own hook for pictures."""
    return (cfg.get('default_hooks') or {}).get('visualization') or {}


def _common_folder(dataset: torch.utils.data.Dataset) -> str | None:
    """The innermost folder with all images of a dataset, if it has files."""
    if not hasattr(dataset, 'get_data_info'):
        return None  # not mmengine's kind
    folders = {
        os.path.dirname(info['img_path'])
        for info in map(dataset.get_data_info, range(len(dataset)))
        if info.get('img_path')
    }
    try:
        return os.path.commonpath(folders)
    except ValueError:  # none, or relative ones beside absolute ones
        return None


def _given_image(inputs: torch.Tensor | list, number: int) -> np.ndarray:
    """An image of a batch; with augmentation, its first view."""
    first = inputs[0]
    if not isinstance(first, torch.Tensor) or first.ndim == 4:
        inputs = first
    image = inputs[number]
    image = image.expand(3, *image.shape[1:])  # some are gray
    return image.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
