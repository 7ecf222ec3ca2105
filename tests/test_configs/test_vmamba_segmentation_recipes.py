"""The segmentors train as VMamba's authors did, value for value."""

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from vmamba_recipes import (
    ARCHS,
    SEGMENTORS,
    cases,
    check_backbone,
    check_norms_are_free_of_decay,
    segmentor,
)

CASES = cases(SEGMENTORS)


@pytest.mark.parametrize(('size', 'arch'), CASES)
def test_model(size, arch):
    cfg = segmentor(size, arch)
    check_backbone(cfg, arch)
    assert cfg.model.type == 'EncoderDecoder'
    assert cfg.model.pretrained is None
    assert cfg.model.test_cfg.mode == 'whole'
    side = int(size.partition('x')[0])
    assert cfg.model.data_preprocessor.size == (side, side)
    assert cfg.data_preprocessor.size == (side, side)

    width = ARCHS[arch][0]
    head, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert head.type == 'UPerHead'
    assert head.in_channels == [width * 2**i for i in range(4)]
    assert head.in_index == [0, 1, 2, 3]
    assert head.pool_scales == (1, 2, 3, 6)
    assert head.channels == 512
    assert head.loss_decode.loss_weight == 1.0
    assert auxiliary.type == 'FCNHead'
    assert auxiliary.in_channels == 4 * width
    assert auxiliary.in_index == 2
    assert auxiliary.channels == 256
    assert auxiliary.num_convs == 1
    assert auxiliary.loss_decode.loss_weight == 0.4
    for part in (head, auxiliary):
        assert part.num_classes == 150
        assert part.dropout_ratio == 0.1
        assert part.norm_cfg == dict(type='SyncBN', requires_grad=True)
        assert part.align_corners is False
        assert part.loss_decode.type == 'CrossEntropyLoss'


@pytest.mark.parametrize(('size', 'arch'), CASES)
def test_optimisation(size, arch):
    cfg = segmentor(size, arch)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.get('clip_grad') is None
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01
    )
    assert cfg.train_dataloader.batch_size == 4  # on each of 4 GPUs
    assert cfg.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize(('size', 'arch'), CASES)
def test_schedule(size, arch):
    cfg = segmentor(size, arch)
    assert cfg.train_cfg.type == 'IterBasedTrainLoop'
    assert cfg.train_cfg.max_iters == 160_000
    warmup, poly = cfg.param_scheduler
    assert warmup == dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500
    )
    assert poly == dict(
        type='PolyLR',
        eta_min=0.0,
        power=1.0,
        by_epoch=False,
        begin=1500,
        end=160_000,
    )


@pytest.mark.parametrize('side', [512, 640])
def test_augmentation(side):
    cfg = segmentor(f'{side}x{side}', 'small-s2l15')
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'ADE20KDataset'
    steps = {step.type: step for step in dataset.pipeline}
    assert list(steps) == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'RandomResize',
        'RandomCrop',
        'RandomFlip',
        'PhotoMetricDistortion',
        'PackSegInputs',
    ]
    assert steps['LoadAnnotations'].reduce_zero_label is True
    assert steps['RandomResize'].scale == (4 * side, side)
    assert steps['RandomResize'].ratio_range == (0.5, 2.0)
    assert steps['RandomResize'].keep_ratio is True
    assert steps['RandomCrop'].crop_size == (side, side)
    assert steps['RandomCrop'].cat_max_ratio == 0.75
    assert steps['RandomFlip'].prob == 0.5

    assert cfg.test_dataloader.batch_size == 1
    test = cfg.test_dataloader.dataset.pipeline
    assert [step.type for step in test] == [
        'LoadImageFromFile',
        'Resize',
        'LoadAnnotations',
        'PackSegInputs',
    ]
    assert test[1].scale == (4 * side, side)
    assert test[1].keep_ratio is True


@pytest.mark.parametrize('size', SEGMENTORS)
@pytest.mark.parametrize('arch', ['vanilla-small', 'small-s2l15'])
def test_weight_decay(size, arch):
    check_norms_are_free_of_decay(segmentor(size, arch), arch)


@pytest.mark.parametrize(('size', 'arch'), CASES)
def test_tta_takes_six_sizes_and_their_mirror_images(size, arch, tmp_path):
    cfg = segmentor(size, arch)
    assert cfg.tta_model.type == 'SegTTAModel'
    labels = tmp_path / 'labels.png'
    cv2.imwrite(str(labels), np.full((60, 80), 3, dtype=np.uint8))
    results = dict(
        img=np.zeros((60, 80, 3), dtype=np.uint8),
        img_shape=(60, 80),
        ori_shape=(60, 80),
        seg_map_path=str(labels),
        seg_fields=[],
        reduce_zero_label=True,
    )
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        views = Compose(cfg.tta_pipeline[1:])(results)
    seen = [(s.img_shape, s.flip) for s in views['data_samples']]
    ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert seen == [
        ((60 * ratio, 80 * ratio), flip)
        for ratio in ratios
        for flip in (False, True)
    ]
    for sample in views['data_samples']:
        assert sample.gt_sem_seg.data.shape == (1, 60, 80)
        assert (sample.gt_sem_seg.data == 2).all()
