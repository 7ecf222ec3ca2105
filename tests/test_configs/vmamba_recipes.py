"""What the tests of VMamba's recipes share: archs and reading of configs.

The table holds what the original authors' settings say.
"""

import re
from functools import cache
from pathlib import Path

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

import mmssm

FAMILY = Path(__file__).parents[2] / 'configs' / 'vmamba'
RELEASES = 'https://github.com/MzeroMiko/VMamba/releases/download/%23'

# arch: first stage's channels, drop path of the classifier and of detectors
# and segmentors (None: there are none), file of the classifier.
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
DOWNSTREAM = [arch for arch in ARCHS if ARCHS[arch][2] is not None]
DETECTORS = {
    '1x': DOWNSTREAM,
    'ms-crop-3x': [
        'vanilla-tiny',
        'vanilla-small',
        'tiny-s2l5',
        'small-s2l15',
        'tiny-s1l8',
    ],
}
SEGMENTORS = {
    '512x512': DOWNSTREAM,
    '640x640': ['vanilla-small', 'small-s2l15'],
}
# Image sizes of the configs that only evaluate.
EVALUATION_SIZES = (384, 512, 640, 768, 1024)


def cases(table):
    """(recipe, arch) of every config that a table stands for."""
    return [
        (recipe, arch) for recipe, archs in table.items() for arch in archs
    ]


@cache
def parsed(name):
    return Config.fromfile(FAMILY / f'{name}.py', import_custom_modules=False)


def classifier(arch):
    return parsed(f'vmamba-{arch}_8xb128_in1k')


def detector(schedule, arch):
    return parsed(f'mask-rcnn_vmamba-{arch}_fpn_{schedule}_coco')


def segmentor(size, arch):
    return parsed(f'vmamba-{arch}-in1k-pre_upernet_4xb4-160k_ade20k-{size}')


def drop_path(cfg):
    backbone = cfg.model.backbone
    settings = mmssm.VMamba.arch_settings[backbone.arch]
    return backbone.get('drop_path_rate', settings['drop_path_rate'])


def check_backbone(cfg, arch):
    """A detector's or segmentor's backbone is the one that was released."""
    _, _, rate, weights = ARCHS[arch]
    assert cfg.model.backbone.type == 'VMamba'
    assert cfg.model.backbone.arch == arch
    assert cfg.model.backbone.out_indices == (0, 1, 2, 3)
    assert drop_path(cfg) == rate
    assert cfg.model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint=f'{RELEASES}{weights}.pth'
    )


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
    full = cfg.optim_wrapper.optimizer.weight_decay
    names = {True: {}, False: {}}
    for name, param in model.named_parameters():
        assert rates[id(param)] in (0.0, full)
        names[rates[id(param)] > 0][name] = param
    return names[True], names[False]


def check_norms_are_free_of_decay(cfg, arch):
    """What the originals call norm is free of decay, and that alone.

    Their stems' norms are called patch_embed.2 and .7; so are the norms
    of the downsampling convolutions (downsample.3), but not those of the
    vanilla models' patch merging (downsample.norm). Norms in the heads are
    called bn.
    """
    called_norm = re.compile(
        r'backbone\.(norm\d|stages\.\d\.blocks\.\d+\.(norm\d|mixer\.out_norm)'
        + (r'|stages\.\d\.downsample\.norm' if 'vanilla' in arch else '')
        + r')\.(weight|bias)'
    )
    with_decay, without = decayed(cfg)
    assert all(called_norm.fullmatch(name) for name in without)
    assert not any(called_norm.fullmatch(name) for name in with_decay)
    blocks = sum(mmssm.VMamba.arch_settings[arch]['depths'])
    norms = 4 + (2 * blocks + 3 if 'vanilla' in arch else 3 * blocks)
    assert len(without) == 2 * norms
