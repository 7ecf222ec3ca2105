"""Pictures of a model's predictions beside the truth.

What each task draws is in :mod:`mmssm.apis.tasks`.
"""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, MODELS, DefaultScope
from torch import nn

from mmssm.checkpoint import locate_checkpoint
from mmssm.checkpoint.strict_load import load_exactly, open_checkpoint
from mmssm.engine.runner.scoped_runner import build_dataset
from mmssm.utils.config import (
    complete_model,
    load_config,
    require,
)
from mmssm.utils.device import find_device
from mmssm.utils.files import make_folder
from mmssm.visualization.sheets import check_sheet_file, write_sheet

from .annotations import check_annotations
from .preflight import check_data
from .tasks import Task, find_task
from .tasks.base import Results


def draw_predictions(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    num: int | None = None,
    score_thr: float = 0.5,
    device: torch.device | str | None = None,
    options: dict | None = None,
) -> None:
    """Draw test images with the truth and a model's predictions.

    The boxes and masks of a detector and the label maps of a segmentor are
    drawn beside the truth, the classes of a classifier below the images, and
    the map of a change detector beside both images and the truth. The config
    decides the task: its ``default_scope``, and whether its pipeline reads
    pairs.

    Args:
        config (str | Path): A config for mmdet, mmseg or mmpretrain; its
            test set has the images.
        checkpoint (str | Path): A file or address; must fit the model exactly.
        out (str | Path): The picture, ``.png`` or ``.jpg``.
        num (int | None): How many images, spread evenly over the test set. By
            default 8, for a classifier 40.
        score_thr (float): Detections with a lower score are left out; other
            tasks ignore it. Defaults to 0.5.
        device (torch.device | str | None): Where the model runs. By default a
            GPU if there is one.
        options (dict | None): Config values to overwrite.

    Raises:
        ConfigError: If the config or its data cannot be used.
        CheckpointError: If the checkpoint cannot be used.
        UserError: If ``num`` is not positive or ``out`` has another suffix.
    """
    out = check_sheet_file(out, num)
    # Checked first: a wrong checkpoint is reported before missing data.
    checkpoint = locate_checkpoint(checkpoint)
    device = find_device(device)
    cfg = load_config(str(config), options)
    task = find_task(cfg, 'drawing predictions')
    require(cfg, 'model', 'test_dataloader', purpose='drawing predictions')
    check_data(cfg, 'test')
    check_annotations(cfg, 'test')
    task.check_test_set(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = _load_model(cfg, checkpoint, device)
        dataset = build_dataset(cfg.test_dataloader.dataset)
        make_folder(out.parent, '--out')
        classes = task.find_test_classes(cfg, dataset.metainfo)
        num = min(num or task.default_num, len(dataset))
        results = _predict(task, cfg, model, dataset, num)
        sheet = task.draw_results(results, classes, score_thr)
    write_sheet(sheet, out)


def _load_model(
    cfg: Config, checkpoint: str, device: torch.device
) -> nn.Module:
    model = MODELS.build(complete_model(cfg))
    load_exactly(model, open_checkpoint(checkpoint))
    return model.to(device).eval()


def _predict(
    task: Task,
    cfg: Config,
    model: nn.Module,
    dataset: torch.utils.data.Dataset,
    num: int,
) -> Results:
    """Run the model on images that are spread evenly over the dataset."""
    collate = cfg.test_dataloader.get('collate_fn', {'type': 'pseudo_collate'})
    collate = FUNCTIONS.get(collate['type'])
    for index in np.linspace(0, len(dataset) - 1, num).round().astype(int):
        with torch.no_grad():
            (sample,) = model.test_step(collate([dataset[int(index)]]))
        task.check_sample(sample, cfg)
        image = task.read_test_image(dataset.get_data_info(int(index)))
        yield image, sample.cpu()
