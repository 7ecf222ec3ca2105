"""Image classification, with mmpretrain."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from PIL import Image

from mmssm.utils import ConfigError
from mmssm.visualization.palette import Classes
from mmssm.visualization.pictures import draw_classification
from mmssm.visualization.task_sheets import class_sheet, true_class_sheet

from ..image_sizes import own_size
from ..picture_hook import PictureHook, hook_settings, use_visualizer
from .base import (
    Prediction,
    Predictor,
    Results,
    Task,
    load_model,
    to_rgb,
)

TOP = 5  # classes in a prediction


class Classification(Task):
    """Classify images."""

    name = 'classification'
    model = 'a classifier'
    truth = 'gt_label'
    prediction = 'pred_score'
    default_num = 40

    def picture_hook(self, cfg: Config, folder: Path) -> Hook:
        """Use mmpretrain's visualizer, as the config's hook sets it."""
        use_visualizer(cfg, 'UniversalVisualizer')
        of_hook = {'type', '_scope_', 'enable', 'interval', 'show', 'out_dir'}
        options = {
            key: value
            for key, value in hook_settings(cfg).items()
            if key not in of_hook
        }

        def draw(visualizer, image, sample, path):
            visualizer.visualize_cls(image, sample, out_file=path, **options)

        return PictureHook(folder, draw)

    def input_shape(self, cfg: Config) -> tuple[int, int]:
        """The size of the config's test images, or 224 x 224."""
        try:
            size = own_size(cfg) if 'test_dataloader' in cfg else 224
        except ConfigError:  # the test pipeline sets no size
            size = 224
        return size, size

    def build_predictor(
        self,
        cfg: Config,
        checkpoint: dict,
        classes: Classes,
        device: torch.device,
        score_thr: float,
        optimize: str | None,
    ) -> Predictor:
        """Use mmpretrain's inferencer."""
        from mmpretrain import ImageClassificationInferencer, get_model
        from mmpretrain.models.heads import MultiLabelClsHead

        model = get_model(cfg)
        load_model(model, checkpoint, classes, optimize)
        inferencer = ImageClassificationInferencer(
            model, device=device, classes=classes.names
        )

        def predict(image: np.ndarray) -> Prediction:
            (batch,) = inferencer.preprocess([image])
            (sample,) = inferencer.forward(batch)
            scores = self.predicted(sample, model).cpu()
            if isinstance(getattr(model, 'head', None), MultiLabelClsHead):
                labels = sample.pred_label.cpu()  # by its thr or topk
            else:
                labels = torch.topk(scores, min(TOP, len(scores))).indices
            labels = sorted(labels.tolist(), key=lambda i: -scores[i])
            rows = [
                dict(
                    label=label,
                    name=classes.names[label],
                    score=float(scores[label]),
                )
                for label in labels
            ]
            picture = draw_classification(to_rgb(image), rows)
            return Prediction(dict(classes=rows), picture)

        return predict

    def find_test_classes(self, cfg: Config, meta: dict) -> Classes | None:
        """A classifier can do without names."""
        if meta.get('classes') is None:
            return None
        return super().find_test_classes(cfg, meta)

    def draw_results(
        self, results: Results, classes: Classes | None, score_thr: float
    ) -> Image.Image:
        """Draw thumbnails with the predicted and, if wrong, the true class."""
        return class_sheet(results, classes and classes.names)

    def draw_truth(
        self, results: Results, classes: Classes | None
    ) -> Image.Image:
        """Draw thumbnails with the true class."""
        return true_class_sheet(results, classes and classes.names)

    def true_labels(self, info: dict) -> list[int]:
        """Of the image; some images have several."""
        return np.atleast_1d(info['gt_label']).tolist()
