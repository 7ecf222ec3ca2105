"""The classifiers train as their authors trained them, value for value."""

import numpy as np
import pytest
from families import (
    FAMILIES,
    FRACTAL_MAMBA,
    LOCAL_VIM,
    LOCAL_VMAMBA,
    SPATIAL_MAMBA,
    VIM,
    VMAMBA,
    classifiers,
)
from mmengine.config import Config
from recipes import (
    CONFIGS,
    decayed,
    learning_rates,
    views_of,
)

SMALLEST = [
    (VMAMBA, 'tiny-s1l8'),
    (SPATIAL_MAMBA, 'tiny'),
    (LOCAL_VMAMBA, 'tiny'),
    (LOCAL_VIM, 'tiny'),
    (VIM, 'tiny'),
    (FRACTAL_MAMBA, 'tiny'),
]


@pytest.mark.parametrize('folder', sorted({f.folder for f in FAMILIES}))
def test_there_is_a_config_for_every_published_result(folder):
    expected = set()
    for family in FAMILIES:
        if family.folder == folder:
            expected |= family.config_names()
    assert expected <= {p.stem for p in (CONFIGS / folder).glob('*.py')}


@pytest.mark.parametrize(('family', 'arch'), classifiers())
def test_model(family, arch):
    cfg = family.classifier(arch)
    assert cfg.model.backbone.type == family.backbone.__name__
    assert family.drop_path(cfg) == family.archs[arch].drop_path
    assert cfg.model.head.in_channels == family.features(arch)
    # A plain model gives the head a vector, a convolution takes the map.
    assert (cfg.model.neck is None) == (family.plain or bool(family.conv_head))
    assert cfg.model.head.get('mid_channels') == family.conv_head
    loss = cfg.model.head.loss
    assert (loss.type, loss.label_smooth_val) == ('LabelSmoothLoss', 0.1)
    assert cfg.model.train_cfg.augments == [
        dict(type='Mixup', alpha=family.recipe.mixup),
        dict(type='CutMix', alpha=1.0),
    ]


@pytest.mark.parametrize(('family', 'arch'), classifiers())
def test_optimization(family, arch):
    cfg = family.classifier(arch)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.type == 'AdamW'
    assert optimizer.lr == 1e-3
    settings, recipe = family.archs[arch], family.recipe
    assert optimizer.weight_decay == (
        settings.weight_decay or recipe.weight_decay
    )
    assert optimizer.betas == (0.9, 0.999)
    assert optimizer.eps == 1e-8
    assert cfg.optim_wrapper.clip_grad == recipe.clip_grad
    assert cfg.optim_wrapper.type == (
        'AmpOptimWrapper' if recipe.amp else 'OptimWrapper'
    )
    assert cfg.train_dataloader.batch_size == settings.batch
    assert cfg.train_dataloader.sampler.type == recipe.sampler
    assert cfg.auto_scale_lr.base_batch_size == 8 * settings.batch
    assert cfg.train_cfg.max_epochs == 300


@pytest.mark.parametrize('family', FAMILIES, ids=str)
def test_schedule(family):
    first, *others = [family.classifier(arch) for arch in family.archs]
    for cfg in others:
        assert cfg.param_scheduler == first.param_scheduler
    length = 20
    rates = learning_rates(first, length)
    expected = [family.recipe.rate(i / length) for i in range(300 * length)]
    error = family.recipe.rate_error
    np.testing.assert_allclose(rates, expected, rtol=error)


@pytest.mark.parametrize(('family', 'arch'), classifiers())
def test_running_mean_of_the_weights(family, arch):
    hooks = {hook.type: hook for hook in family.classifier(arch).custom_hooks}
    expected = []
    if family.archs[arch].ema and family.recipe.ema is not None:
        expected.append('EMAHook')
        assert hooks['EMAHook'].momentum == family.recipe.ema
        if not family.plain:
            # timm's mean is one of batch norms' statistics, too.
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
    if family.folder != 'local_mamba':
        assert augment.policies == 'timm_increasing'
    assert augment.num_policies == 2
    assert augment.magnitude_level == 9
    assert augment.magnitude_std == 0.5
    assert train['RandomErasing'].erase_prob == 0.25
    assert train['RandomErasing'].mode == 'rand'
    test = {step.type: step for step in cfg.test_pipeline}
    assert test['ResizeEdge'].scale == family.recipe.short_edge
    assert test['ResizeEdge'].interpolation == 'bicubic'
    assert test['CenterCrop'].crop_size == 224


@pytest.mark.parametrize(
    ('family', 'arch'),
    [(VMAMBA, 'vanilla-tiny'), (LOCAL_VIM, 'tiny-midcls'), *SMALLEST],
    ids=str,
)
def test_weight_decay(family, arch):
    with_decay, without = decayed(family.classifier(arch))
    for name in [*without]:
        if name in family.tokens:
            del without[name]
    for name, param in without.items():
        assert param.ndim == 1 or name.endswith('.bias')
    for name, param in with_decay.items():
        assert param.ndim > 1 and not name.endswith('.bias')
        assert name not in family.tokens
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


@pytest.mark.parametrize('px', VMAMBA.evaluation_sizes)
@pytest.mark.parametrize('family', [VMAMBA, FRACTAL_MAMBA], ids=str)
def test_evaluation_at_another_size(family, px):
    """Swin's and the originals' transform, and nothing else, changes."""
    cfg = family.evaluation(px)
    pipeline = cfg.test_dataloader.dataset.pipeline
    assert pipeline == cfg.test_pipeline
    _, resize, crop, _ = pipeline
    assert (resize.type, resize.edge) == ('ResizeEdge', 'short')
    assert resize.scale == int(family.recipe.short_edge / 224 * px)
    assert resize.interpolation == 'bicubic'
    assert crop.crop_size == px
    image = np.zeros((300, 400, 3), dtype=np.uint8)
    for view in views_of(cfg, image)['inputs']:
        assert view.shape == (3, px, px)

    original = family.classifier(family.evaluation_arch).to_dict()
    changed = {k for k, v in cfg.to_dict().items() if v != original[k]}
    assert changed == {'test_pipeline', 'tta_pipeline', 'test_dataloader'}
    assert set(original) == set(cfg.to_dict())


def test_routes_differ_from_the_tree_in_the_scan_alone():
    tree = FRACTAL_MAMBA.classifier('tiny').to_dict()
    routes = FRACTAL_MAMBA.config('fractal-mamba-tiny-routes_8xb128_in1k')
    assert tree['model']['backbone'] == dict(type='FractalMamba', arch='tiny')
    tree['model']['backbone']['scan'] = 'routes'
    assert routes.to_dict() == tree


def test_renamed_config_still_works_and_names_the_new_one():
    folder = CONFIGS / 'vim'
    with pytest.warns(DeprecationWarning, match='use vim-small_8xb64_in1k.py'):
        old = Config.fromfile(folder / 'vim-small_8xb128_in1k.py')
    new = Config.fromfile(folder / 'vim-small_8xb64_in1k.py')
    assert old.to_dict() == new.to_dict()
