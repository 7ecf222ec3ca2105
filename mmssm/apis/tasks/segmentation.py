"""Semantic segmentation, with mmseg."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from PIL import Image

from mmssm.visualization.palette import Classes
from mmssm.visualization.pictures import (
    add_list,
    draw_segmentation,
    percent,
)
from mmssm.visualization.task_sheets import label_map_sheet

from ..classes import (
    add_background,
    check_names,
    check_palette,
    has_threshold,
    name_background,
)
from ..picture_hook import PictureHook, use_visualizer
from .base import (
    Prediction,
    Predictor,
    Results,
    Task,
    exact_inferencer,
    to_rgb,
)


class Segmentation(Task):
    """A label for every pixel."""

    name = 'segmentation'
    model = 'a segmentor'
    truth = 'gt_sem_seg'
    prediction = 'pred_sem_seg'

    def check_test_set(self, cfg: Config) -> None:
        """Check names and palette.

        Mmseg counts the classes by their names and compares the palette.
        """
        check_names(cfg, needed=True)
        if has_threshold(cfg):
            name_background(cfg)
        check_palette(cfg)

    def picture_hook(self, cfg: Config, folder: Path) -> Hook:
        """Use mmseg's visualizer."""
        use_visualizer(cfg, 'SegLocalVisualizer')

        def draw(visualizer, image, sample, path):
            visualizer.add_datasample('', image, sample, out_file=path)

        return PictureHook(folder, draw)

    def pack_prediction(self, sample: dict) -> dict:
        """Leave out the logits; make label maps as small as they can be."""
        packed = {k: v for k, v in sample.items() if k != 'seg_logits'}
        for field in (self.prediction, self.truth):
            if field in packed:
                labels = _shrink(packed[field]['data'])
                packed[field] = packed[field] | dict(data=labels)
        return super().pack_prediction(packed)

    def input_shape(self, cfg: Config) -> tuple[int, int]:
        """The height of the training crop, and four times that as width.

        512 x 2048 for most configs.
        """
        crop = (cfg.model.get('data_preprocessor') or {}).get('size')
        height = crop[0] if crop else 512
        return height, 4 * height

    def build_predictor(
        self,
        cfg: Config,
        checkpoint: dict,
        classes: Classes,
        device: torch.device,
        score_thr: float,
        optimize: str | None,
    ) -> Predictor:
        """Use mmseg's inferencer."""
        from mmseg.apis import MMSegInferencer
        from mmseg.visualization import SegLocalVisualizer

        if has_threshold(cfg):
            classes = add_background(classes)
        inferencer = exact_inferencer(
            MMSegInferencer,
            checkpoint,
            classes,
            optimize,
            # The inferencer needs one. This one is not registered globally.
            SegLocalVisualizer(name='unused'),
        )(cfg, device=str(device))

        def predict(image: np.ndarray, draw: bool = True) -> Prediction:
            (batch,) = inferencer.preprocess([image])
            (sample,) = inferencer.forward(batch)
            labels = self.predicted(sample, inferencer.model)
            kind = np.uint8 if len(classes.names) <= 256 else np.uint16
            labels = labels.data[0].cpu().numpy().astype(kind)
            counts = np.bincount(labels.ravel(), minlength=len(classes.names))
            rows = [
                dict(
                    label=int(label),
                    name=classes.names[label],
                    share=float(counts[label] / labels.size),
                )
                for label in np.argsort(-counts, kind='stable')
                if counts[label]
            ]
            picture = None
            if draw:
                picture = self.draw_label_map(image, labels, classes, rows)
            return Prediction(dict(classes=rows), picture, labels)

        return predict

    def draw_label_map(
        self,
        image: np.ndarray,
        labels: np.ndarray,
        classes: Classes,
        rows: list[dict],
    ) -> Image.Image:
        """Draw a prediction.

        Args:
            image (np.ndarray): As :meth:`read` returns it.
            labels (np.ndarray): (H, W).
            classes (Classes): The names and colors of the classes.
            rows (list[dict]): ``label``, ``name`` and ``share`` of the classes
                in the image.
        """
        lines = [
            (classes.palette[row['label']], row['name'], percent(row['share']))
            for row in rows
        ]
        picture = draw_segmentation(to_rgb(image), labels, classes.palette)
        return add_list(picture, lines)

    def draw_results(
        self, results: Results, classes: Classes | None, score_thr: float
    ) -> Image.Image:
        """Draw true and predicted labels over the images."""
        return label_map_sheet(results, classes)

    def draw_truth(
        self, results: Results, classes: Classes | None
    ) -> Image.Image:
        """Draw true labels over the images."""
        return label_map_sheet(results, classes, with_prediction=False)


def _shrink(labels: torch.Tensor) -> torch.Tensor:
    """A label map in uint8, or in int32 if it has other values."""
    if labels.numel() and (labels.min() < 0 or labels.max() > 255):
        return labels.int()
    return labels.byte()
