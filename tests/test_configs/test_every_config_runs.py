"""Every config builds, and learns from a batch of synthetic images."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData

from mmssm.utils.config import complete_model

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in ROOT.glob('configs/*/*.py')
    if path.parent.name != '_base_'
)
SIDE = 64


def classification_batch(model):
    from mmpretrain.structures import DataSample

    return dict(
        inputs=list(torch.randint(0, 256, (2, 3, SIDE, SIDE))),
        data_samples=[DataSample().set_gt_label(i) for i in (3, 7)],
    )


def detection_batch(model):
    from mmdet.testing import demo_mm_inputs

    # Of the first stage, where there are several.
    head = next(
        m for m in model.roi_head.modules() if hasattr(m, 'num_classes')
    )
    return demo_mm_inputs(
        batch_size=2,
        image_shapes=(3, SIDE, SIDE),
        num_items=[2, 3],
        num_classes=head.num_classes,
        with_mask=True,
    )


def segmentation_batch(model):
    from mmseg.structures import SegDataSample

    shape = (SIDE, SIDE)
    # Six of the pairs that a change detector takes.
    channels = len(model.data_preprocessor.mean)
    samples = [
        SegDataSample(
            metainfo=dict(img_shape=shape, ori_shape=shape),
            gt_sem_seg=PixelData(
                data=torch.randint(0, model.num_classes, (1, *shape))
            ),
        )
        for _ in range(2)
    ]
    return dict(
        inputs=list(torch.randint(0, 256, (2, channels, *shape))),
        data_samples=samples,
    )


BATCHES = dict(
    mmpretrain=classification_batch,
    mmdet=detection_batch,
    mmseg=segmentation_batch,
)


def build(cfg):
    """The config's model as a training would have it, but with no weights."""
    model = complete_model(cfg)
    # Else the images would be padded to the crop's size.
    if 'size' in model.data_preprocessor:
        model.data_preprocessor.size = (SIDE, SIDE)
    if cfg.default_scope == 'mmdet':
        model.data_preprocessor.pop('batch_augments', None)
        model.data_preprocessor.pad_size_divisor = SIDE
        few_regions(model.train_cfg)
    return revert_sync_batchnorm(MODELS.build(model)).train()


def few_regions(train_cfg):
    """Let the heads of a detector learn from few regions, to save time."""
    train_cfg.rpn_proposal.max_per_img = 50
    stages = train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.num = 32


@pytest.fixture(autouse=True)
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    'path', CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}'
)
def test_a_training_step_reaches_the_first_layer(path):
    cfg = Config.fromfile(path)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg)
        batch = BATCHES[cfg.default_scope](model)
        batch = model.data_preprocessor(batch, training=True)
        loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    gradient = next(model.backbone.parameters()).grad
    assert gradient.isfinite().all()
    assert gradient.any()
