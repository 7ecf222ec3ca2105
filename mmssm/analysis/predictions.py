"""Pictures of what a model predicts, beside the truth.

What is drawn of each task lies in :mod:`task_sheets`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, FUNCTIONS, MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import nn

from mmssm.checkpoint import atomic_write, check_file
from mmssm.engine import ConfigError, check_data
from mmssm.engine.config import load_config, require
from mmssm.engine.strict_load import load_exactly, open_checkpoint

from .task_sheets import (
    Results,
    draw_classes,
    draw_detections,
    draw_label_maps,
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
) -> None:
    """Draw test images with the truth and what a model predicts.

    A detector's boxes and masks and a segmentor's label maps stand beside the
    truth; a classifier's answers stand below the images. The config's
    ``default_scope`` says which of the three the model is.

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
    if '://' not in str(checkpoint):
        check_file(checkpoint)  # before the data are looked for
    cfg = load_config(str(config))
    scope = cfg.get('default_scope')
    if scope not in FIELDS:
        raise ConfigError(
            f'config {config} is of the scope {scope}; predictions are drawn '
            f'of models of {", ".join(FIELDS)}: set default_scope to one'
        )
    require(cfg, 'model', 'test_dataloader', purpose='drawing predictions')
    check_data(cfg, 'test')
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    draw: dict[str, Callable[[Results, dict], Image.Image]] = dict(
        mmdet=partial(draw_detections, score_thr=score_thr),
        mmseg=draw_label_maps,
        mmpretrain=draw_classes,
    )
    with DefaultScope.overwrite_default_scope(scope):
        model = _load_model(cfg, str(checkpoint), device)
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        if not len(dataset):
            raise ConfigError(
                f'the test set of config {config} holds no image; check its '
                'test_dataloader.dataset'
            )
        results = _predict(cfg, model, dataset, num or DEFAULT_NUM[scope])
        sheet = draw[scope](results, dataset.metainfo)
    with atomic_write(out) as file:
        # PNG has no quality; JPEG's own default blots writing.
        sheet.save(file, format=FORMATS[out.suffix.lower()], quality=92)


def _load_model(
    cfg: Config, checkpoint: str, device: torch.device | str
) -> nn.Module:
    if cfg.get('data_preprocessor') is not None:
        # mmpretrain's configs set it beside the model.
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
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
    """An image of a dataset: (H, W, 3) red-green-blue, or (H, W) grey."""
    if 'img' in info:  # Some small sets are kept in memory.
        return info['img']
    return mmcv.imread(info['img_path'], channel_order='rgb')
