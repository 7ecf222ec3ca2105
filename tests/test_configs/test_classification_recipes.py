"""The classifiers train as their authors trained them, value for value."""

import numpy as np
import pytest
from recipes import (
    CONFIGS,
    FAMILIES,
    SPATIAL_MAMBA,
    VMAMBA,
    classifiers,
    decayed,
    views_of,
)

EVALUATION_SIZES = VMAMBA.evaluation_sizes
SMALLEST = [(VMAMBA, 'tiny-s1l8'), (SPATIAL_MAMBA, 'tiny')]


@pytest.mark.parametrize('family', FAMILIES, ids=str)
def test_there_is_a_config_for_every_published_result(family):
    expected = {f'{family}-{arch}_8xb128_in1k' for arch in family.archs}
    expected |= {
        f'{family}-{family.evaluation_arch}_8xb128_in1k-{px}px'
        for px in family.evaluation_sizes
    }
    expected |= {
        f'mask-rcnn_{family}-{arch}_fpn_{schedule}_coco'
        for schedule, archs in family.detectors.items()
        for arch in archs
    }
    expected |= {
        f'{family}-{arch}-in1k-pre_upernet_4xb4-160k_ade20k-{size}'
        for size, archs in family.segmentors.items()
        for arch in archs
    }
    folder = CONFIGS / family.folder
    assert {path.stem for path in folder.glob('*.py')} == expected


@pytest.mark.parametrize(('family', 'arch'), classifiers())
def test_model(family, arch):
    cfg = family.classifier(arch)
    assert cfg.model.backbone.type == family.backbone.__name__
    assert family.drop_path(cfg) == family.archs[arch].drop_path
    assert cfg.model.head.in_channels == 8 * family.archs[arch].width
    loss = cfg.model.head.loss
    assert (loss.type, loss.label_smooth_val) == ('LabelSmoothLoss', 0.1)
    assert cfg.model.train_cfg.augments == [
        dict(type='Mixup', alpha=0.8),
        dict(type='CutMix', alpha=1.0),
    ]


@pytest.mark.parametrize(('family', 'arch'), classifiers())
def test_optimisation(family, arch):
    cfg = family.classifier(arch)
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


@pytest.mark.parametrize(('family', 'arch'), classifiers())
def test_schedule(family, arch):
    warmup, cosine = family.classifier(arch).param_scheduler
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


@pytest.mark.parametrize(('family', 'arch'), classifiers())
def test_running_mean_of_the_weights(family, arch):
    hooks = {hook.type: hook for hook in family.classifier(arch).custom_hooks}
    expected = []
    if family.archs[arch].ema:
        expected.append('EMAHook')
        # timm's mean is one of batch norms' statistics, too.
        assert hooks['EMAHook'].momentum == 1e-4
        assert hooks['EMAHook'].update_buffers is True
    if family.archs[arch].mesa is not None:
        expected.append('mmssm.engine.MESAHook')
        mesa = hooks['mmssm.engine.MESAHook']
        assert (mesa.weight, mesa.begin) == (family.archs[arch].mesa, 0.25)
    assert list(hooks) == expected


@pytest.mark.parametrize(('family', 'arch'), SMALLEST, ids=str)
def test_augmentation(family, arch):
    cfg = family.classifier(arch)
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


@pytest.mark.parametrize(
    ('family', 'arch'), [(VMAMBA, 'vanilla-tiny'), *SMALLEST], ids=str
)
def test_weight_decay(family, arch):
    with_decay, without = decayed(family.classifier(arch))
    for name, param in without.items():
        assert param.ndim == 1 or name.endswith('.bias')
    for name, param in with_decay.items():
        assert param.ndim > 1 and not name.endswith('.bias')
    kinds = {name.rpartition('.')[2] for name in with_decay}
    assert kinds == {'weight', *family.decayed}
    kinds = {name.rpartition('.')[2] for name in without}
    assert kinds == {'weight', 'bias', *family.free}


@pytest.mark.parametrize(('family', 'arch'), SMALLEST, ids=str)
def test_tta_adds_the_mirror_image(family, arch):
    cfg = family.classifier(arch)
    assert cfg.tta_model == dict(type='mmpretrain.AverageClsScoreTTA')
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    views = views_of(cfg, image)
    plain, mirrored = views['inputs']
    assert plain.shape == (3, 224, 224)
    assert mirrored.equal(plain.flip(2))
    assert [s.flip for s in views['data_samples']] == [False, True]


@pytest.mark.parametrize('px', EVALUATION_SIZES)
def test_evaluation_at_another_size(px):
    """Swin's and the originals' transform, and nothing else, changes."""
    cfg = VMAMBA.evaluation(px)
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

    original = VMAMBA.classifier(VMAMBA.evaluation_arch).to_dict()
    changed = {k for k, v in cfg.to_dict().items() if v != original[k]}
    assert changed == {'test_pipeline', 'tta_pipeline', 'test_dataloader'}
    assert set(original) == set(cfg.to_dict())
