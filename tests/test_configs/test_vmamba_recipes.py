"""The configs train as VMamba's authors did, value for value."""

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from vmamba_recipes import (
    ARCHS,
    DETECTORS,
    EVALUATION_SIZES,
    FAMILY,
    SEGMENTORS,
    cases,
    check_backbone,
    check_norms_are_free_of_decay,
    classifier,
    decayed,
    detector,
    drop_path,
    parsed,
)

DETECTOR_CASES = cases(DETECTORS)


def views_of(cfg, image, **results):
    """What a config's TTA pipeline makes of an image that is loaded."""
    results = dict(
        img=image,
        img_shape=image.shape[:2],
        ori_shape=image.shape[:2],
        **results,
    )
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Compose(cfg.tta_pipeline[1:])(results)


def test_there_is_a_config_for_every_published_result():
    expected = {f'vmamba-{arch}_8xb128_in1k' for arch in ARCHS}
    expected |= {
        f'vmamba-tiny-s1l8_8xb128_in1k-{px}px' for px in EVALUATION_SIZES
    }
    expected |= {
        f'mask-rcnn_vmamba-{arch}_fpn_{schedule}_coco'
        for schedule, arch in DETECTOR_CASES
    }
    expected |= {
        f'vmamba-{arch}-in1k-pre_upernet_4xb4-160k_ade20k-{size}'
        for size, arch in cases(SEGMENTORS)
    }
    assert {path.stem for path in FAMILY.glob('*.py')} == expected


class TestClassification:
    @pytest.mark.parametrize('arch', ARCHS)
    def test_model(self, arch):
        width, rate, _, _ = ARCHS[arch]
        cfg = classifier(arch)
        assert drop_path(cfg) == rate
        assert cfg.model.head.in_channels == 8 * width
        loss = cfg.model.head.loss
        assert (loss.type, loss.label_smooth_val) == ('LabelSmoothLoss', 0.1)
        assert cfg.model.train_cfg.augments == [
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]

    @pytest.mark.parametrize('arch', ARCHS)
    def test_optimisation(self, arch):
        cfg = classifier(arch)
        optimizer = cfg.optim_wrapper.optimizer
        assert optimizer.type == 'AdamW'
        assert optimizer.lr == 1e-3
        assert optimizer.weight_decay == 0.05
        assert optimizer.betas == (0.9, 0.999)
        assert optimizer.eps == 1e-8
        assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
        assert cfg.train_dataloader.batch_size == 128
        assert cfg.auto_scale_lr.base_batch_size == 1024
        assert cfg.train_cfg.max_epochs == 300

    def test_schedule(self):
        warmup, cosine = classifier('tiny-s1l8').param_scheduler
        assert warmup == dict(
            type='LinearLR',
            start_factor=1e-3,  # 1e-6
            by_epoch=True,
            end=20,
            convert_to_iter_based=True,
        )
        assert cosine == dict(
            type='CosineAnnealingLR',
            eta_min=1e-5,
            by_epoch=True,
            begin=20,
            end=300,
            convert_to_iter_based=True,
        )

    @pytest.mark.parametrize('arch', ARCHS)
    def test_running_mean_of_the_weights(self, arch):
        means = [
            hook.momentum
            for hook in classifier(arch).custom_hooks
            if hook.type == 'EMAHook'
        ]
        assert means == ([] if arch == 'vanilla-tiny' else [1e-4])

    def test_augmentation(self):
        cfg = classifier('tiny-s1l8')
        train = {step.type: step for step in cfg.train_pipeline}
        assert train['RandomResizedCrop'].scale == 224
        assert train['RandomResizedCrop'].interpolation == 'bicubic'
        augment = train['RandAugment']
        assert augment.policies == 'timm_increasing'
        assert augment.num_policies == 2
        assert augment.magnitude_level == 9
        assert augment.magnitude_std == 0.5
        assert train['RandomErasing'].erase_prob == 0.25
        assert train['RandomErasing'].mode == 'rand'
        test = {step.type: step for step in cfg.test_pipeline}
        assert test['ResizeEdge'].scale == 256
        assert test['ResizeEdge'].interpolation == 'bicubic'
        assert test['CenterCrop'].crop_size == 224

    @pytest.mark.parametrize('arch', ['vanilla-tiny', 'tiny-s1l8'])
    def test_weight_decay(self, arch):
        with_decay, without = decayed(classifier(arch))
        for name, param in without.items():
            assert param.ndim == 1 or name.endswith('.bias')
        for name, param in with_decay.items():
            assert param.ndim > 1 and not name.endswith('.bias')
        kinds = {name.rpartition('.')[2] for name in with_decay}
        assert {
            'A_logs',
            'x_proj_weight',
            'dt_projs_weight',
            'dt_projs_bias',
        } <= kinds
        assert any(name.endswith('.Ds') for name in without)

    def test_tta_adds_the_mirror_image(self):
        cfg = classifier('tiny-s1l8')
        assert cfg.tta_model == dict(type='mmpretrain.AverageClsScoreTTA')
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
        views = views_of(cfg, image)
        plain, mirrored = views['inputs']
        assert plain.shape == (3, 224, 224)
        assert mirrored.equal(plain.flip(2))
        assert [s.flip for s in views['data_samples']] == [False, True]

    @pytest.mark.parametrize('px', EVALUATION_SIZES)
    def test_evaluation_at_another_size(self, px):
        """Swin's and the originals' transform, and nothing else, changes."""
        cfg = parsed(f'vmamba-tiny-s1l8_8xb128_in1k-{px}px')
        pipeline = cfg.test_dataloader.dataset.pipeline
        assert pipeline == cfg.test_pipeline
        _, resize, crop, _ = pipeline
        assert (resize.type, resize.edge) == ('ResizeEdge', 'short')
        assert resize.scale == int(256 / 224 * px)
        assert resize.interpolation == 'bicubic'
        assert crop.crop_size == px
        image = np.zeros((300, 400, 3), dtype=np.uint8)
        for view in views_of(cfg, image)['inputs']:
            assert view.shape == (3, px, px)

        original = classifier('tiny-s1l8').to_dict()
        changed = {k for k, v in cfg.to_dict().items() if v != original[k]}
        assert changed == {'test_pipeline', 'tta_pipeline', 'test_dataloader'}
        assert set(original) == set(cfg.to_dict())


class TestDetection:
    @pytest.mark.parametrize(('schedule', 'arch'), DETECTOR_CASES)
    def test_model(self, schedule, arch):
        cfg = detector(schedule, arch)
        assert cfg.model.type == 'MaskRCNN'
        check_backbone(cfg, arch)
        width = ARCHS[arch][0]
        assert cfg.model.neck.in_channels == [width * 2**i for i in range(4)]

    @pytest.mark.parametrize(('schedule', 'arch'), DETECTOR_CASES)
    def test_optimisation(self, schedule, arch):
        cfg = detector(schedule, arch)
        assert cfg.optim_wrapper.type == 'OptimWrapper'
        assert cfg.optim_wrapper.get('clip_grad') is None
        assert cfg.optim_wrapper.optimizer == dict(
            type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
        )
        # The vanilla base model took 16 GPUs.
        per_gpu = 1 if arch == 'vanilla-base' else 2
        assert cfg.train_dataloader.batch_size == per_gpu
        assert cfg.auto_scale_lr.base_batch_size == 16

    @pytest.mark.parametrize(('schedule', 'arch'), DETECTOR_CASES)
    def test_schedule(self, schedule, arch):
        epochs, milestones = {
            '1x': (12, [8, 11]),
            'ms-crop-3x': (36, [27, 33]),
        }[schedule]
        cfg = detector(schedule, arch)
        assert cfg.train_cfg.max_epochs == epochs
        warmup, steps = cfg.param_scheduler
        assert warmup == dict(
            type='LinearLR',
            start_factor=1e-3,
            by_epoch=False,
            begin=0,
            end=1000,
        )
        assert steps == dict(
            type='MultiStepLR',
            by_epoch=True,
            end=epochs,
            milestones=milestones,
            gamma=0.1,
        )

    def test_augmentation(self):
        single = detector('1x', 'tiny-s1l8').train_dataloader.dataset.pipeline
        assert [step.type for step in single] == [
            'LoadImageFromFile',
            'LoadAnnotations',
            'Resize',
            'RandomFlip',
            'PackDetInputs',
        ]
        assert single[2].scale == (1333, 800)
        assert single[3].prob == 0.5

        cfg = detector('ms-crop-3x', 'tiny-s1l8')
        flip, choice = cfg.train_dataloader.dataset.pipeline[2:4]
        assert flip.prob == 0.5
        (resize,), (first, crop, second) = choice.transforms
        sides = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
        assert resize.scales == [(side, 1333) for side in sides]
        assert second == resize
        assert first.scales == [(400, 1333), (500, 1333), (600, 1333)]
        assert crop.crop_size == (384, 600)
        assert crop.crop_type == 'absolute_range'

    @pytest.mark.parametrize('schedule', DETECTORS)
    @pytest.mark.parametrize('arch', ['vanilla-tiny', 'tiny-s1l8'])
    def test_weight_decay(self, schedule, arch):
        check_norms_are_free_of_decay(detector(schedule, arch), arch)

    @pytest.mark.parametrize('schedule', DETECTORS)
    def test_tta_takes_three_sizes_and_their_mirror_images(self, schedule):
        cfg = detector(schedule, 'tiny-s1l8')
        assert cfg.tta_model == dict(
            type='mmssm.models.InstanceSegTTAModel',
            tta_cfg=dict(
                nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
            ),
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
