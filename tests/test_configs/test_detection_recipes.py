"""The detectors train as their authors trained them, value for value."""

import numpy as np
import pytest
from families import (
    FRACTAL_MAMBA,
    LOCAL_VMAMBA,
    SPATIAL_MAMBA,
    VMAMBA,
    detectors,
)
from recipes import (
    views_of,
)

SMALLEST = [
    (VMAMBA, 'tiny-s1l8'),
    (SPATIAL_MAMBA, 'tiny'),
    (LOCAL_VMAMBA, 'tiny'),
    (FRACTAL_MAMBA, 'tiny'),
]
SCHEDULES = ['1x', 'ms-crop-3x']


@pytest.mark.parametrize(('family', 'schedule', 'arch'), detectors())
def test_model(family, schedule, arch):
    cfg = family.detector(schedule, arch)
    assert cfg.model.type == 'MaskRCNN'
    family.check_backbone(cfg, arch)
    width = family.archs[arch].width
    assert cfg.model.neck.in_channels == [width * 2**i for i in range(4)]


@pytest.mark.parametrize(('family', 'schedule', 'arch'), detectors())
def test_optimization(family, schedule, arch):
    cfg = family.detector(schedule, arch)
    mixed = 'detector' in family.archs[arch].amp
    assert cfg.optim_wrapper.type == (
        'AmpOptimWrapper' if mixed else 'OptimWrapper'
    )
    assert cfg.optim_wrapper.get('clip_grad') is None
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert cfg.train_dataloader.batch_size == family.archs[arch].per_gpu
    assert cfg.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize(('family', 'schedule', 'arch'), detectors())
def test_schedule(family, schedule, arch):
    epochs, milestones = {
        '1x': (12, [8, 11]),
        'ms-crop-3x': (36, [27, 33]),
    }[schedule]
    cfg = family.detector(schedule, arch)
    assert cfg.train_cfg.max_epochs == epochs
    warmup, steps = cfg.param_scheduler
    assert warmup == dict(
        type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1000
    )
    assert steps == dict(
        type='MultiStepLR',
        by_epoch=True,
        end=epochs,
        milestones=milestones,
        gamma=0.1,
    )


@pytest.mark.parametrize(('family', 'arch'), SMALLEST, ids=str)
def test_augmentation(family, arch):
    single = family.detector('1x', arch).train_dataloader.dataset.pipeline
    assert [step.type for step in single] == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'Resize',
        'RandomFlip',
        'PackDetInputs',
    ]
    assert single[2].scale == (1333, 800)
    assert single[3].prob == 0.5

    cfg = family.detector('ms-crop-3x', arch)
    flip, choice = cfg.train_dataloader.dataset.pipeline[2:4]
    assert flip.prob == 0.5
    (resize,), (first, crop, second) = choice.transforms
    sides = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
    assert resize.scales == [(side, 1333) for side in sides]
    assert second == resize
    assert first.scales == [(400, 1333), (500, 1333), (600, 1333)]
    assert crop.crop_size == (384, 600)
    assert crop.crop_type == 'absolute_range'


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize(
    ('family', 'arch'), [(VMAMBA, 'vanilla-tiny'), *SMALLEST], ids=str
)
def test_weight_decay(family, arch, schedule):
    cfg = family.detector(schedule, arch)
    family.check_norms_are_free_of_decay(cfg, arch)


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize(('family', 'arch'), SMALLEST, ids=str)
def test_tta_takes_three_sizes_and_their_mirror_images(family, arch, schedule):
    cfg = family.detector(schedule, arch)
    assert cfg.tta_model == dict(
        type='mmssm.models.InstanceSegTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    )
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    views = views_of(cfg, image, img_id=7, img_path='', instances=[])
    samples = views['data_samples']
    assert [(s.img_shape, s.flip) for s in samples] == [
        ((640, 853), False),
        ((640, 853), True),
        ((800, 1067), False),
        ((800, 1067), True),
        ((960, 1280), False),
        ((960, 1280), True),
    ]
    for view, sample in zip(views['inputs'], samples):
        assert view.shape == (3, *sample.img_shape)
        assert sample.img_id == 7
        assert sample.ori_shape == (480, 640)
        assert sample.scale_factor[0] == sample.img_shape[1] / 640
        expected = 'horizontal' if sample.flip else None
        assert sample.flip_direction == expected
