"""The tasks that inference knows: one for each scope, and pairs of images.

Models, pipelines and forward passes are those of the libraries' own
inferencers. Not theirs are the loading (only what fits exactly), the classes
(no guess) and the pictures (legible at any size, the same in every run).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch import nn

from mmssm.engine import ConfigError
from mmssm.engine.classes import Classes, check_count, find_classes
from mmssm.engine.config import reads_pairs
from mmssm.engine.strict_load import load_exactly

from .model_setup import adapt_config
from .pictures import (
    CHANGED,
    add_list,
    draw_changes,
    draw_classification,
    draw_detections,
    draw_segmentation,
    percent,
)

TOP = 5  # classes that classification names


@dataclass
class Prediction:
    """What is found in an image.

    Attributes:
        record (dict): The task's part of the JSON file.
        picture (Image.Image): The image with what was found.
        label_map (np.ndarray | None): (H, W) uint8 or uint16, for
            segmentation and change detection.
    """

    record: dict
    picture: Image.Image
    label_map: np.ndarray | None = None


Predictor = Callable[[np.ndarray], Prediction]


def build_predictor(
    cfg: Config, checkpoint: dict, device: torch.device, score_thr: float
) -> Predictor:
    """Build and load a config's model, ready to predict.

    Must be called, and the result used, in the config's default scope.

    Args:
        cfg (Config): A config of mmdet, mmseg or mmpretrain's kind, with a
            ``test_dataloader``.
        checkpoint (dict): The opened checkpoint.
        device (torch.device): Where the model runs.
        score_thr (float): Detections that score less are left out.

    Returns:
        Callable: From an image, (H, W, 3) uint8, blue-green-red as OpenCV
        reads it, to a :class:`Prediction`. If the config reads pairs, from
        (H, W, 6), red-green-blue of the earlier image, then of the later one.

    Raises:
        ConfigError: The config cannot be used for inference, or does not
            tell the classes.
        CheckpointError: The checkpoint is of another model.
    """
    classes = find_classes(cfg, checkpoint)
    predictor = _PREDICTORS['pairs' if reads_pairs(cfg) else cfg.default_scope]
    return predictor(adapt_config(cfg), checkpoint, classes, device, score_thr)


def _exact(
    base: type, checkpoint: dict, classes: Classes, visualizer: Any = None
) -> type:
    """One of mmengine's inferencers that loads what fits exactly."""

    class Exact(base):
        def _load_weights_to_model(self, model, _, cfg):
            load_exactly(model, checkpoint)
            check_count(model, classes)
            model.dataset_meta = dict(
                classes=classes.names, palette=classes.palette
            )

        def _init_collate(self, cfg):
            return pseudo_collate  # a dataloader's own may stack images

        def _init_visualizer(self, cfg):
            return visualizer

    return Exact


def _result(sample: Any, name: str, model: nn.Module, kind: str) -> Any:
    if name not in sample:
        raise ConfigError(
            f'{type(model).__name__} is not {kind}: its results have no {name}'
        )
    return sample.get(name)


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def _build_detector(
    cfg: Config,
    checkpoint: dict,
    classes: Classes,
    device: torch.device,
    score_thr: float,
) -> Predictor:
    from mmdet.apis import DetInferencer

    inferencer = _exact(DetInferencer, checkpoint, classes)(
        cfg, device=str(device)
    )

    def predict(image: np.ndarray) -> Prediction:
        ((_, batch),) = inferencer.preprocess([image])
        (sample,) = inferencer.forward(batch)
        found = _result(
            sample, 'pred_instances', inferencer.model, 'a detector'
        ).cpu()
        found = found[found.scores >= score_thr]
        sample.pred_instances = found[found.scores.argsort(descending=True)]
        fields = inferencer.pred2dict(sample)
        columns = [fields['labels'], fields['scores'], fields['bboxes']]
        rows = []
        for label, score, bbox in zip(*columns):
            name = classes.names[label]
            rows.append(dict(label=label, name=name, score=score, bbox=bbox))
        for row, mask in zip(rows, fields.get('masks', [])):
            row['mask'] = mask
        masks = sample.pred_instances.get('masks')
        picture = draw_detections(
            _rgb(image),
            rows,
            [classes.palette[row['label']] for row in rows],
            None if masks is None else np.asarray(masks, dtype=bool),
        )
        return Prediction(dict(detections=rows), picture)

    return predict


def _build_segmentor(
    cfg: Config,
    checkpoint: dict,
    classes: Classes,
    device: torch.device,
    score_thr: float,
    draw: Callable[[np.ndarray, np.ndarray, Classes, list[dict]], Image.Image],
) -> Predictor:
    from mmseg.apis import MMSegInferencer
    from mmseg.visualization import SegLocalVisualizer

    inferencer = _exact(
        MMSegInferencer,
        checkpoint,
        classes,
        # It insists on having one. Built directly, it has no global name.
        SegLocalVisualizer(name='unused'),
    )(cfg, device=str(device))

    def predict(image: np.ndarray) -> Prediction:
        (batch,) = inferencer.preprocess([image])
        (sample,) = inferencer.forward(batch)
        labels = _result(
            sample, 'pred_sem_seg', inferencer.model, 'a segmentor'
        )
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
        picture = draw(image, labels, classes, rows)
        return Prediction(dict(classes=rows), picture, labels)

    return predict


def _draw_label_map(
    image: np.ndarray, labels: np.ndarray, classes: Classes, rows: list[dict]
) -> Image.Image:
    lines = [
        (classes.palette[row['label']], row['name'], percent(row['share']))
        for row in rows
    ]
    picture = draw_segmentation(_rgb(image), labels, classes.palette)
    return add_list(picture, lines)


def _draw_pair(
    pair: np.ndarray, labels: np.ndarray, classes: Classes, rows: list[dict]
) -> Image.Image:
    lines = [
        (CHANGED if row['label'] else None, row['name'], percent(row['share']))
        for row in rows
    ]
    return draw_changes(pair, labels, lines)


def _build_classifier(
    cfg: Config,
    checkpoint: dict,
    classes: Classes,
    device: torch.device,
    score_thr: float,
) -> Predictor:
    from mmpretrain import ImageClassificationInferencer, get_model

    model = get_model(cfg)
    load_exactly(model, checkpoint)
    check_count(model, classes)
    inferencer = ImageClassificationInferencer(
        model, device=device, classes=classes.names
    )

    def predict(image: np.ndarray) -> Prediction:
        (batch,) = inferencer.preprocess([image])
        (sample,) = inferencer.forward(batch)
        scores = _result(sample, 'pred_score', model, 'a classifier').cpu()
        best = torch.topk(scores, min(TOP, len(scores)))
        rows = [
            dict(label=label, name=classes.names[label], score=score)
            for score, label in zip(
                best.values.tolist(), best.indices.tolist()
            )
        ]
        picture = draw_classification(_rgb(image), rows)
        return Prediction(dict(classes=rows), picture)

    return predict


_PREDICTORS = dict(
    mmdet=_build_detector,
    mmseg=partial(_build_segmentor, draw=_draw_label_map),
    mmpretrain=_build_classifier,
    pairs=partial(_build_segmentor, draw=_draw_pair),
)
