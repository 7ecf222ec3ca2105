"""What is special about LocalMamba's recipes."""

from math import ceil

import numpy as np
import pytest
from families import LOCAL_VIM, LOCAL_VMAMBA
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from recipes import decayed, learning_rates, local_mamba_rate

from mmssm.backbones import LocalVim
from mmssm.backbones.directions import CANDIDATES, LOCAL_VIM_TINY

SEARCHES = [
    (LOCAL_VIM, 'local-vim-tiny', 20, 128),
    (LOCAL_VMAMBA, 'local-vmamba-tiny', 15, 256),
    (LOCAL_VMAMBA, 'local-vmamba-small', 33, 256),
]


def search_config(family, name):
    return family.config(f'{name}-search_8xb128_in1k')


def rand_augment():
    """The operations that LocalMamba's classifiers are trained with."""
    cfg = LOCAL_VIM.classifier('tiny')
    settings = next(s for s in cfg.train_pipeline if s.type == 'RandAugment')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return [*TRANSFORMS.build(settings)]


def strength(transform, level):
    """How an operation acts at a level, and how often with the other sign."""
    transform.magnitude_level, transform.magnitude_std = level, 0.0
    return transform.random_magnitude(), transform.random_negative_prob


@pytest.mark.parametrize('level', [8.6, 9, 9.4])
def test_what_a_level_of_rand_augment_does(level):
    """timm's first choice, which the authors' "rand-m9-mstd0.5" names."""
    transforms = rand_augment()
    found = {}
    for transform in transforms:
        name = type(transform).__name__
        name += getattr(transform, 'direction', '')[:1]
        assert transform.prob == 0.5
        if transform.magnitude_range is None:
            found[name] = None
            assert getattr(transform, 'radius', 0.45) == 0.45
        else:
            found[name] = strength(transform, level)
    assert len(found) == len(transforms)

    posterized, _ = found.pop('Posterize')
    assert ceil(posterized) == int(level / 10 * 4)
    assert {n for n, s in found.items() if s is None} == {
        'AutoContrast',
        'Equalize',
        'GaussianBlur',
        'Invert',
    }
    strengths = {
        'Rotate': (30, 0.5),
        'Solarize': (256, 0.0),
        'SolarizeAdd': (110, 0.0),
        'Shearh': (0.3, 0.5),
        'Shearv': (0.3, 0.5),
        'Translateh': (0.45, 0.5),
        'Translatev': (0.45, 0.5),
    }
    # Factors of an enhancement, of which 1 changes nothing.
    for name in ('ColorTransform', 'Contrast', 'Brightness', 'Sharpness'):
        more, either = found.pop(name)
        assert 1 + more == pytest.approx(level / 10 * 1.8 + 0.1)
        assert either == 0.0
    for name, (most, either) in strengths.items():
        assert found[name] == (pytest.approx(level / 10 * most), either)


def test_every_operation_of_rand_augment_changes_an_image():
    rng = np.random.default_rng(0)
    # Neither black nor white, so that contrast can be stretched.
    image = rng.integers(20, 250, (40, 40, 3), dtype=np.uint8)
    np.random.seed(0)
    for transform in rand_augment():
        transform.prob = 1.0
        result = transform(dict(img=image.copy()))['img']
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        assert (result != image).any(), type(transform).__name__


def test_local_vim_small_scans_everywhere_as_tiny_does():
    configs = [
        LOCAL_VIM.config(name)
        for name in LOCAL_VIM.config_names()
        if 'small' in name
    ]
    assert len(configs) == 3
    for cfg in configs:
        assert cfg.model.backbone.arch == 'small'
        assert 'directions' not in cfg.model.backbone
    assert LocalVim.arch_settings['small']['directions'] == LOCAL_VIM_TINY


@pytest.mark.parametrize(('family', 'name', 'blocks', 'features'), SEARCHES)
def test_supernet(family, name, blocks, features):
    cfg = search_config(family, name)
    assert cfg.model.head.in_channels == features
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    merges = [m for m in model.modules() if hasattr(m, 'probabilities')]
    assert len(merges) == blocks
    for merge in merges:
        assert merge.weights.shape == (len(CANDIDATES),)
    rates = [
        m.drop_prob
        for n, m in model.named_modules()
        if n.endswith('drop_path')
    ]
    assert max(rates) == pytest.approx(0.1)
    # Of the authors' supernets two have been counted.
    known = {'local-vim-tiny': 5_473_288, 'local-vmamba-tiny': 4_576_656}
    if name in known:
        assert sum(p.numel() for p in model.parameters()) == known[name]


@pytest.mark.parametrize(('family', 'name', 'blocks', 'features'), SEARCHES)
def test_search(family, name, blocks, features):
    """The classifier's recipe, but shorter, with weights that decay."""
    cfg = search_config(family, name)
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.custom_hooks == [
        dict(type='mmssm.engine.DirectionSearchHook', interval=200)
    ]
    with_decay, without = decayed(cfg)
    weights = {n for n in with_decay if n.endswith('merge.weights')}
    assert len(weights) == blocks
    others = {n: p for n, p in with_decay.items() if n not in weights}
    assert all(p.ndim > 1 for p in others.values())
    assert ('backbone.pos_embed' in without) == family.plain

    classifier = family.classifier('tiny')
    for key in ('train_pipeline', 'train_dataloader', 'auto_scale_lr'):
        assert cfg[key] == classifier[key]
    for key in ('type', 'optimizer', 'clip_grad'):
        assert cfg.optim_wrapper[key] == classifier.optim_wrapper[key]
    assert cfg.model.train_cfg == classifier.model.train_cfg


def test_schedule_of_the_search():
    """As long a warm-up, a shorter way down."""
    length = 20
    rates = learning_rates(search_config(*SEARCHES[0][:2]), length)
    full = [local_mamba_rate(i / length) for i in range(20 * length)]
    assert rates[: 20 * length] == pytest.approx(full, rel=1e-3)
    middle = local_mamba_rate(160)
    assert rates[60 * length] == pytest.approx(middle, rel=1e-3)
    assert len(rates) == 100 * length
    assert rates[-1] == pytest.approx(1e-6, rel=1e-2)
    configs = [search_config(*search[:2]) for search in SEARCHES]
    schedules = [cfg.param_scheduler for cfg in configs]
    assert schedules[0] == schedules[1] == schedules[2]
