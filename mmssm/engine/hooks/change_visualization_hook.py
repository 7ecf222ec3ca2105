"""Pictures of a change detector's test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmssm.utils import atomic_write
from mmssm.visualization.picture_names import PictureNames
from mmssm.visualization.task_sheets import change_sheet


@HOOKS.register_module()
class ChangeVisualizationHook(Hook):
    """Write a picture of every tested pair: both images, truth, prediction.

    Errors are colored. With test-time augmentation, the first view is shown.
    With several processes, only the first one draws its images.

    Args:
        out_dir (str): The folder for the pictures. Each has the earlier
            image's path below the folder that all earlier images share; the
            tiles of a pair after the first get a number.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)
        self._names = PictureNames()

    def before_test(self, runner: Runner) -> None:
        """Find the folder that all earlier images share."""
        self._names = PictureNames(runner.test_dataloader.dataset)

    @master_only
    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Draw a batch; its inputs are pairs (6, H, W) uint8."""
        inputs = data_batch['inputs']
        # With augmentation, inputs is a list of views; take the first view.
        pairs = inputs if isinstance(inputs[0], torch.Tensor) else inputs[0]
        for pair, sample in zip(pairs, outputs):
            image = np.ascontiguousarray(pair.permute(1, 2, 0).cpu().numpy())
            sheet = change_sheet([(image, sample.cpu())])
            name, _ = self._names.take(sample.img_path)
            with atomic_write(self.out_dir / f'{name}.png') as file:
                sheet.save(file, 'PNG')
