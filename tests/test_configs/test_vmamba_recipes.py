"""The configs train as VMamba's authors did, value for value."""

import re
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

import mmssm  # noqa: F401  (registers the backbones)

FAMILY = Path(__file__).parents[2] / 'configs' / 'vmamba'
RELEASES = 'https://github.com/MzeroMiko/VMamba/releases/download/%23'

# arch: first stage's channels, drop path of the classifier and of the
# detectors (None: no detector), file of the classifier.
ARCHS = {
    'vanilla-tiny': (96, 0.1, 0.1, 'v0cls/vssmtiny_dp01_ckpt_epoch_292'),
    'vanilla-small': (96, 0.3, 0.1, 'v0cls/vssmsmall_dp03_ckpt_epoch_238'),
    'vanilla-base': (128, 0.6, 0.1, 'v0cls/vssmbase_dp06_ckpt_epoch_241'),
    'tiny-s2l5': (96, 0.2, 0.2, 'v2cls/vssm_tiny_0230_ckpt_epoch_262'),
    'small-s2l15': (96, 0.3, 0.3, 'v2cls/vssm_small_0229_ckpt_epoch_222'),
    'base-s2l15': (128, 0.6, 0.6, 'v2cls/vssm_base_0229_ckpt_epoch_237'),
    'tiny-s1l8': (96, 0.2, 0.2, 'v2cls/vssm1_tiny_0230s_ckpt_epoch_264'),
    'small-s1l20': (96, 0.3, None, 'v2cls/vssm1_small_0229s_ckpt_epoch_240'),
    'base-s1l20': (128, 0.5, None, 'v2cls/vssm1_base_0229s_ckpt_epoch_225'),
}
DETECTORS = {
    '1x': [arch for arch in ARCHS if ARCHS[arch][2] is not None],
    'ms-crop-3x': [
        'vanilla-tiny',
        'vanilla-small',
        'tiny-s2l5',
        'small-s2l15',
        'tiny-s1l8',
    ],
}
DETECTOR_CASES = [(s, a) for s, archs in DETECTORS.items() for a in archs]


@cache
def parsed(name):
    return Config.fromfile(FAMILY / name, import_custom_modules=False)


def classifier(arch):
    return parsed(f'vmamba-{arch}_8xb128_in1k.py')


def detector(schedule, arch):
    return parsed(f'mask-rcnn_vmamba-{arch}_fpn_{schedule}_coco.py')


def drop_path(cfg):
    backbone = cfg.model.backbone
    settings = mmssm.VMamba.arch_settings[backbone.arch]
    return backbone.get('drop_path_rate', settings['drop_path_rate'])


def decayed(cfg):
    """Names of the parameters with and without weight decay."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        # Mixed precision needs a GPU and changes nothing here.
        settings = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
        optimizer = build_optim_wrapper(model, settings).optimizer
    rates = {
        id(param): group['weight_decay']
        for group in optimizer.param_groups
        for param in group['params']
    }
    names = {True: {}, False: {}}
    for name, param in model.named_parameters():
        assert rates[id(param)] in (0.0, 0.05)
        names[rates[id(param)] > 0][name] = param
    return names[True], names[False]


def test_there_is_a_config_for_every_published_result():
    expected = {f'vmamba-{arch}_8xb128_in1k' for arch in ARCHS}
    expected |= {
        f'mask-rcnn_vmamba-{arch}_fpn_{schedule}_coco'
        for schedule, arch in DETECTOR_CASES
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


class TestDetection:
    @pytest.mark.parametrize(('schedule', 'arch'), DETECTOR_CASES)
    def test_model(self, schedule, arch):
        width, _, rate, weights = ARCHS[arch]
        cfg = detector(schedule, arch)
        assert cfg.model.type == 'MaskRCNN'
        assert drop_path(cfg) == rate
        assert cfg.model.backbone.out_indices == (0, 1, 2, 3)
        assert cfg.model.backbone.init_cfg == dict(
            type='Pretrained', checkpoint=f'{RELEASES}{weights}.pth'
        )
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
        """What the originals call norm is free of decay, and that alone.

        Their stems' norms are called patch_embed.2 and .7; so are the norms
        of the downsampling convolutions (downsample.3), but not those of the
        vanilla models' patch merging (downsample.norm).
        """
        called_norm = re.compile(
            r'backbone\.(norm\d|stages\.\d\.blocks\.\d+\.(norm\d|mixer\.out_norm)'
            + (r'|stages\.\d\.downsample\.norm' if 'vanilla' in arch else '')
            + r')\.(weight|bias)'
        )
        with_decay, without = decayed(detector(schedule, arch))
        assert all(called_norm.fullmatch(name) for name in without)
        assert not any(called_norm.fullmatch(name) for name in with_decay)
        blocks = sum(mmssm.VMamba.arch_settings[arch]['depths'])
        norms = 4 + (2 * blocks + 3 if 'vanilla' in arch else 3 * blocks)
        assert len(without) == 2 * norms
