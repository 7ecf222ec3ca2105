"""Pictures of what a model predicts, beside the truth.

What is drawn of each task lies in :mod:`task_sheets`.
"""

from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, FUNCTIONS, MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import nn

from mmssm.checkpoint import atomic_write, locate_checkpoint
from mmssm.engine import ConfigError, check_data
from mmssm.engine.classes import Classes, check_classes, find_palette
from mmssm.engine.config import (
    check_scope,
    complete_model,
    load_config,
    reads_pairs,
    require,
)
from mmssm.engine.device import find_device
from mmssm.engine.strict_load import load_exactly, open_checkpoint
from mmssm.inference.infer import make_folder

from .task_sheets import (
    Results,
    change_sheet,
    class_sheet,
    detection_sheet,
    label_map_sheet,
)

# How many images are drawn by default, and what the model's samples hold of
# the truth and of the prediction, by the config's scope.
DEFAULT_NUM = dict(mmdet=8, mmseg=8, mmpretrain=40)
FIELDS = dict(
    mmdet=('gt_instances', 'pred_instances'),
    mmseg=('gt_sem_seg', 'pred_sem_seg'),
    mmpretrain=('gt_label', 'pred_score'),
)
FORMATS = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG'}


def draw_predictions(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    num: int | None = None,
    score_thr: float = 0.5,
    device: torch.device | str | None = None,
    options: dict | None = None,
) -> None:
    """Draw test images with the truth and what a model predicts.

    A detector's boxes and masks and a segmentor's label maps stand beside the
    truth; a classifier's answers stand below the images; a change detector's
    map stands beside both images and the truth. The config's
    ``default_scope``, and whether its pipeline reads pairs, say which of these
    the model is.

    Args:
        config (str | Path): A config of mmdet, mmseg or mmpretrain; its test
            set gives the images.
        checkpoint (str | Path): A file or address; must fit the model exactly.
        out (str | Path): The picture, ``.png`` or ``.jpg``.
        num (int | None): How many images, spread evenly over the test set. By
            default 8, of a classifier 40.
        score_thr (float): Detections that score less are left out; other
            tasks have no use for it. Defaults to 0.5.
        device (torch.device | str | None): Where the model runs. By default a
            GPU if there is one.
        options (dict | None): Config values to overwrite.

    Raises:
        ConfigError: If the config or its data cannot be used.
        CheckpointError: If the checkpoint cannot be used.
        ValueError: If ``num`` is not positive or the suffix is another one.
    """
    out = Path(out)
    if num is not None and num < 1:
        raise ValueError(f'--num {num}: at least 1 image must be drawn')
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f'cannot write {out}: name it .png or .jpg')
    if out.is_dir():
        raise ConfigError(f'--out {out} is a folder; name a picture')
    # Before the data are looked for.
    checkpoint = locate_checkpoint(checkpoint)
    device = find_device(device)
    cfg = load_config(str(config), options)
    scope = check_scope(cfg, 'drawing predictions')
    require(cfg, 'model', 'test_dataloader', purpose='drawing predictions')
    check_data(cfg, 'test')
    check_classes(cfg)
    with DefaultScope.overwrite_default_scope(scope):
        model = _load_model(cfg, checkpoint, device)
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        if not len(dataset):
            raise ConfigError(
                f'the test set of config {config} holds no image; check its '
                'test_dataloader.dataset'
            )
        make_folder(out.parent, '--out')
        results = _predict(cfg, model, dataset, num or DEFAULT_NUM[scope])
        sheet = _draw(cfg, results, dataset.metainfo, score_thr)
    with atomic_write(out) as file:
        # PNG has no quality; JPEG's own default blots writing.
        sheet.save(file, format=FORMATS[out.suffix.lower()], quality=92)


def _draw(
    cfg: Config, results: Results, meta: dict, score_thr: float
) -> Image.Image:
    names = meta.get('classes')
    if cfg.default_scope == 'mmpretrain':
        return class_sheet(results, names)
    if names is None:
        raise ConfigError(
            f'the test set of config {cfg.filename} names no classes; set '
            'test_dataloader.dataset.metainfo.classes=("name", ...)'
        )
    classes = Classes(list(names), find_palette(cfg, names), 'the test set')
    if cfg.default_scope == 'mmdet':
        return detection_sheet(results, classes, score_thr)
    if reads_pairs(cfg):
        return change_sheet(results)
    return label_map_sheet(results, classes)


def _load_model(
    cfg: Config, checkpoint: str, device: torch.device
) -> nn.Module:
    model = MODELS.build(complete_model(cfg))
    load_exactly(model, open_checkpoint(checkpoint))
    return model.to(device).eval()


def _predict(
    cfg: Config, model: nn.Module, dataset: torch.utils.data.Dataset, num: int
) -> Results:
    """Run the model on images that are spread evenly over the dataset."""
    collate = cfg.test_dataloader.get('collate_fn', {'type': 'pseudo_collate'})
    collate = FUNCTIONS.get(collate['type'])
    num = min(num, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, num).round().astype(int):
        with torch.no_grad():
            (sample,) = model.test_step(collate([dataset[int(index)]]))
        _check_sample(sample, cfg)
        yield _read_image(dataset.get_data_info(int(index))), sample.cpu()


def _check_sample(sample: BaseDataElement, cfg: Config) -> None:
    truth, prediction = FIELDS[cfg.default_scope]
    if prediction not in sample:
        raise ConfigError(
            f'{cfg.model.type} of config {cfg.filename} predicts no '
            f'{prediction}; a detector, segmentor or classifier is drawn'
        )
    known = truth in sample
    if truth == 'gt_instances':  # There always, but it may hold nothing.
        known = known and 'bboxes' in sample.gt_instances
    if not known:
        raise ConfigError(
            f'the test pipeline of config {cfg.filename} gives no {truth} to '
            'draw beside the predictions; use a test set with annotations '
            'and load them'
        )


def _read_image(info: dict) -> np.ndarray:
    """An image of a dataset, (H, W, 3) uint8, red-green-blue.

    Of a pair both, (H, W, 6), the earlier one first.
    """
    if 'img_path_after' in info:
        from mmssm.datasets import LoadImagePair

        return LoadImagePair()(info)['img']
    if 'img' in info:  # Some small sets are kept in memory, MNIST as grey.
        image = np.asarray(info['img'])
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        return image
    return mmcv.imread(info['img_path'], channel_order='rgb')
