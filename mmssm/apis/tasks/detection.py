"""Object detection and instance segmentation, with mmdet."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image
from torch import nn

from mmssm.visualization.palette import Classes
from mmssm.visualization.pictures import draw_detections, draw_segments
from mmssm.visualization.task_sheets import (
    detection_sheet,
    instance_sheet,
)

from ..classes import check_names
from ..picture_hook import PictureHook, hook_settings, use_visualizer
from .base import (
    Prediction,
    Predictor,
    Results,
    Task,
    exact_inferencer,
    to_rgb,
)


class Detection(Task):
    """Boxes and masks of instances, or panoptic segments."""

    name = 'detection'
    model = 'a detector'
    truth = 'gt_instances'
    prediction = 'pred_instances'

    def check_test_set(self, cfg: Config) -> None:
        """Check the names, which mmdet's metrics need.

        They may be missing: some datasets of mmdet read them from a file.
        """
        check_names(cfg, needed=False)

    def picture_hook(self, cfg: Config, folder: Path) -> Hook:
        """Use mmdet's visualizer, and the score of the config's hook."""
        use_visualizer(cfg, 'DetLocalVisualizer')
        score_thr = hook_settings(cfg).get('score_thr', 0.3)

        def draw(visualizer, image, sample, path):
            visualizer.add_datasample(
                '', image, sample, out_file=path, pred_score_thr=score_thr
            )

        return PictureHook(folder, draw)

    def pack_prediction(self, sample: dict) -> dict:
        """Leave out the truth; make masks COCO's compressed RLE.

        As mmdet's ``DumpDetResults`` does. Panoptic maps have 32 bits.
        """
        from mmdet.structures.mask import encode_mask_results

        packed = {
            key: value
            for key, value in sample.items()
            if not key.startswith('gt_') and key != 'ignored_instances'
        }
        found = packed.get('pred_instances', {})
        if isinstance(found.get('masks'), torch.Tensor):
            masks = encode_mask_results(found['masks'].cpu().numpy())
            packed['pred_instances'] = found | dict(masks=masks)
        segments = packed.get('pred_panoptic_seg')
        if segments is not None:
            labels = segments['sem_seg'].int()
            packed['pred_panoptic_seg'] = segments | dict(sem_seg=labels)
        return super().pack_prediction(packed)

    def input_shape(self, cfg: Config) -> tuple[int, int]:
        """800 x 1280."""
        return 800, 1280

    def prepare_count(
        self, model: nn.Module, shape: tuple[int, int]
    ) -> list[int]:
        """Give ``forward`` a data sample, and count the regions."""
        from mmdet.structures import DetDataSample

        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=shape,
                batch_input_shape=shape,
                scale_factor=(1.0, 1.0),
            )
        )
        model.forward = partial(model.forward, data_samples=[sample])
        regions: list[int] = []
        head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
        if isinstance(head, nn.ModuleList):
            head = head[0]  # the first stage of a cascade
        if head is not None:
            head.register_forward_pre_hook(
                lambda module, args: regions.append(len(args[0]))
            )
        return regions

    def build_predictor(
        self,
        cfg: Config,
        checkpoint: dict,
        classes: Classes,
        device: torch.device,
        score_thr: float,
        optimize: str | None,
    ) -> Predictor:
        """Use mmdet's inferencer."""
        from mmdet.apis import DetInferencer

        inferencer = exact_inferencer(
            DetInferencer, checkpoint, classes, optimize
        )(cfg, device=str(device))

        def predict(image: np.ndarray) -> Prediction:
            ((_, batch),) = inferencer.preprocess([image])
            (sample,) = inferencer.forward(batch)
            if 'pred_panoptic_seg' in sample:
                labels = sample.pred_panoptic_seg.sem_seg.squeeze(0).cpu()
                return _as_segments(image, labels.numpy(), classes)
            found = self.predicted(sample, inferencer.model).cpu()
            found = found[found.scores >= score_thr]
            sample.pred_instances = found[
                found.scores.argsort(descending=True)
            ]
            fields = inferencer.pred2dict(sample)
            return _as_instances(image, sample.pred_instances, fields, classes)

        return predict

    def draw_results(
        self, results: Results, classes: Classes | None, score_thr: float
    ) -> Image.Image:
        """Draw true and found instances side by side."""
        return detection_sheet(results, classes, score_thr)

    def draw_truth(
        self, results: Results, classes: Classes | None
    ) -> Image.Image:
        """Draw true instances."""
        return instance_sheet(results, classes)

    def true_labels(self, info: dict) -> list[int]:
        """Of the boxes that are no crowd."""
        return [
            instance['bbox_label']
            for instance in info['instances']
            if not instance.get('ignore_flag')
        ]

    def has_truth(self, sample: BaseDataElement) -> bool:
        """``gt_instances`` is always there, but may be empty."""
        return self.truth in sample and 'bboxes' in sample.gt_instances


def _as_instances(
    image: np.ndarray, found: InstanceData, fields: dict, classes: Classes
) -> Prediction:
    """Boxes and masks; ``fields`` is what mmdet writes of them."""
    rows = [
        dict(label=label, name=classes.names[label], score=score, bbox=bbox)
        for label, score, bbox in zip(
            fields['labels'], fields['scores'], fields['bboxes']
        )
    ]
    for row, mask in zip(rows, fields.get('masks', [])):
        row['mask'] = mask
    masks = found.get('masks')
    picture = draw_detections(
        to_rgb(image),
        rows,
        [classes.palette[row['label']] for row in rows],
        None if masks is None else np.asarray(masks, dtype=bool),
    )
    return Prediction(dict(detections=rows), picture)


def _as_segments(
    image: np.ndarray, codes: np.ndarray, classes: Classes
) -> Prediction:
    """The segments of a panoptic map, whose pixels are label and instance."""
    from mmdet.evaluation.functional import INSTANCE_OFFSET

    rows, ids = [], np.zeros(codes.shape, dtype=np.uint16)
    found, counts = np.unique(codes, return_counts=True)
    for place in np.argsort(-counts, kind='stable'):
        label = int(found[place] % INSTANCE_OFFSET)
        if label >= len(classes.names):
            continue  # the model found nothing there
        row = dict(id=len(rows) + 1, label=label, name=classes.names[label])
        rows.append(row | dict(share=float(counts[place] / codes.size)))
        ids[codes == found[place]] = row['id']
    colors = [classes.palette[row['label']] for row in rows]
    picture = draw_segments(to_rgb(image), ids, rows, colors)
    return Prediction(dict(segments=rows), picture, ids)
