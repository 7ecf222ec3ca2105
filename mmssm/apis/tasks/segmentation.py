"""Semantic segmentation, with mmseg."""

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from mmssm.visualization.palette import Classes
from mmssm.visualization.pictures import (
    add_list,
    draw_segmentation,
    percent,
)
from mmssm.visualization.task_sheets import label_map_sheet

from ..classes import check_names, check_palette
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
        check_palette(cfg)

    def draw_test_images(self, cfg: Config, folder: str, tta: bool) -> None:
        """Switch on mmseg's hook."""
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = folder

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
    ) -> Predictor:
        """Use mmseg's inferencer."""
        from mmseg.apis import MMSegInferencer
        from mmseg.visualization import SegLocalVisualizer

        inferencer = exact_inferencer(
            MMSegInferencer,
            checkpoint,
            classes,
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
