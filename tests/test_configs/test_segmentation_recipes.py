"""The segmentors train as their authors trained them, value for value."""

import cv2
import numpy as np
import pytest
from families import (
    FRACTAL_MAMBA,
    LOCAL_VMAMBA,
    SPATIAL_MAMBA,
    VMAMBA,
    segmentors,
)
from recipes import (
    views_of,
)


@pytest.mark.parametrize(('family', 'size', 'arch'), segmentors())
def test_model(family, size, arch):
    cfg = family.segmentor(size, arch)
    drop_path = family.archs[arch].segmentor_drop_path
    family.check_backbone(cfg, arch, drop_path)
    assert cfg.model.type == 'EncoderDecoder'
    assert cfg.model.pretrained is None
    assert cfg.model.test_cfg.mode == 'whole'
    side = int(size.partition('x')[0])
    assert cfg.model.data_preprocessor.size == (side, side)
    assert cfg.data_preprocessor.size == (side, side)

    width = family.archs[arch].width
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


@pytest.mark.parametrize(('family', 'size', 'arch'), segmentors())
def test_optimization(family, size, arch):
    cfg = family.segmentor(size, arch)
    mixed = 'segmentor' in family.archs[arch].amp
    assert cfg.optim_wrapper.type == (
        'AmpOptimWrapper' if mixed else 'OptimWrapper'
    )
    assert cfg.optim_wrapper.get('clip_grad') is None
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01
    )
    assert cfg.train_dataloader.batch_size == 4  # on each of 4 GPUs
    assert cfg.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize(('family', 'size', 'arch'), segmentors())
def test_schedule(family, size, arch):
    cfg = family.segmentor(size, arch)
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


@pytest.mark.parametrize(
    ('family', 'side', 'arch'),
    [
        (VMAMBA, 512, 'small-s2l15'),
        (VMAMBA, 640, 'small-s2l15'),
        (SPATIAL_MAMBA, 512, 'tiny'),
        (LOCAL_VMAMBA, 512, 'tiny'),
        (FRACTAL_MAMBA, 512, 'tiny'),
    ],
    ids=str,
)
def test_augmentation(family, side, arch):
    cfg = family.segmentor(f'{side}x{side}', arch)
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


@pytest.mark.parametrize(
    ('family', 'size', 'arch'),
    [
        (VMAMBA, '512x512', 'vanilla-small'),
        (VMAMBA, '512x512', 'small-s2l15'),
        (VMAMBA, '640x640', 'vanilla-small'),
        (VMAMBA, '640x640', 'small-s2l15'),
        (SPATIAL_MAMBA, '512x512', 'tiny'),
        (LOCAL_VMAMBA, '512x512', 'tiny'),
        (FRACTAL_MAMBA, '512x512', 'tiny'),
    ],
    ids=str,
)
def test_weight_decay(family, size, arch):
    cfg = family.segmentor(size, arch)
    family.check_norms_are_free_of_decay(cfg, arch)


@pytest.mark.parametrize(('family', 'size', 'arch'), segmentors())
def test_tta_sizes_and_mirror_images(family, size, arch, tmp_path):
    cfg = family.segmentor(size, arch)
    assert cfg.tta_model.type == 'SegTTAModel'
    labels = tmp_path / 'labels.png'
    cv2.imwrite(str(labels), np.full((60, 80), 3, dtype=np.uint8))
    views = views_of(
        cfg,
        np.zeros((60, 80, 3), dtype=np.uint8),
        seg_map_path=str(labels),
        seg_fields=[],
        reduce_zero_label=True,
    )
    seen = [(s.img_shape, s.flip) for s in views['data_samples']]
    assert seen == [
        (shape, flip) for shape in family.tta_sizes for flip in (False, True)
    ]
    for sample in views['data_samples']:
        assert sample.gt_sem_seg.data.shape == (1, 60, 80)
        assert (sample.gt_sem_seg.data == 2).all()
