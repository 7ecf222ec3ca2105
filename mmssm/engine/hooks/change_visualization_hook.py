"""Pictures of a change detector's test."""

from collections import Counter
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
from mmssm.visualization.task_sheets import change_sheet


@HOOKS.register_module()
class ChangeVisualizationHook(Hook):
    """Write a picture of every tested pair: both images, truth, prediction.

    Errors are colored. With test-time augmentation, the first view is shown.
    With several processes, only the first one draws its images.

    Args:
        out_dir (str): The folder for ``<name>.png``. If several pairs or
            tiles have the same name, all but the first get a number.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)
        self._names = Counter()

    @master_only
    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Draw a batch; its inputs are pairs (6, H, W) uint8."""
        self.out_dir.mkdir(parents=True, exist_ok=True)
        inputs = data_batch['inputs']
        # With augmentation, inputs is a list of views; take the first view.
        pairs = inputs if isinstance(inputs[0], torch.Tensor) else inputs[0]
        for pair, sample in zip(pairs, outputs):
            image = np.ascontiguousarray(pair.permute(1, 2, 0).cpu().numpy())
            sheet = change_sheet([(image, sample.cpu())])
            with atomic_write(self.out_dir / self._name(sample)) as file:
                sheet.save(file, 'PNG')

    def _name(self, sample: BaseDataElement) -> str:
        stem = Path(sample.img_path).stem
        self._names[stem] += 1
        number = self._names[stem]
        return f'{stem}.png' if number == 1 else f'{stem}_{number}.png'
