"""The families whose recipes are tested.

The tables hold what the original authors' settings say.
"""

import re
from dataclasses import replace

import pytest
from recipes import (
    Arch,
    Family,
    Recipe,
    grootv_rate,
    local_mamba_rate,
    vim_rate,
)

import mmssm


def _norm_pattern(*names: str) -> re.Pattern:
    return re.compile(rf'backbone\.({"|".join(names)})\.(weight|bias)')


def _vmamba_norms(arch: str) -> tuple[re.Pattern, int]:
    """VMamba's stem has its norms at patch_embed.2 and .7, without a name.

    So do the downsampling convolutions (downsample.3), but not the vanilla
    models' patch merging (downsample.norm).
    """
    vanilla = 'vanilla' in arch
    blocks = sum(mmssm.VMamba.arch_settings[arch]['depths'])
    names = [r'norm\d', r'stages\.\d\.blocks\.\d+\.(norm\d|mixer\.out_norm)']
    if vanilla:
        names.append(r'stages\.\d\.downsample\.norm')
    return _norm_pattern(*names), 4 + (
        2 * blocks + 3 if vanilla else 3 * blocks
    )


def _spatial_mamba_norms(arch: str) -> tuple[re.Pattern, int]:
    """Its stem and downsampling have conv*.norm; its blocks ln_1 and ln_2."""
    blocks = sum(mmssm.SpatialMamba.arch_settings[arch]['depths'])
    pattern = _norm_pattern(
        r'norm\d',
        r'stem\.conv1\.bn',
        r'stem\.conv[23]\.[01]\.bn',
        r'stages\.[123]\.downsample\.conv\.2\.bn',
        r'stages\.\d\.blocks\.\d+\.mixer\.out_norm',
    )
    return pattern, 4 + 5 + 3 + blocks


def _local_vmamba_norms(arch: str) -> tuple[re.Pattern, int]:
    """As in VMamba's vanilla models, and one norm in every gate."""
    blocks = sum(mmssm.LocalVMamba.arch_settings[arch]['depths'])
    pattern = _norm_pattern(
        r'norm\d',
        r'stages\.\d\.downsample\.norm',
        r'stages\.\d\.blocks\.\d+\.(norm1|mixer\.(out_norm|merge\.norm))',
    )
    return pattern, 4 + 3 + 3 * blocks


def _fractal_mamba_norms(arch: str) -> tuple[re.Pattern, int]:
    """All are called norm in GrootV, of which it has the blocks."""
    blocks = sum(mmssm.FractalMamba.arch_settings[arch]['depths'])
    pattern = _norm_pattern(
        r'norm\d',
        r'stem\.norm[12]',
        r'stages\.\d\.downsample\.norm',
        r'stages\.\d\.blocks\.\d+\.(norm[12]|mixer\.(h|out)_norm)',
    )
    return pattern, 4 + 2 + 3 + 4 * blocks


_VMAMBA_DOWNSTREAM = [
    'vanilla-tiny',
    'vanilla-small',
    'vanilla-base',
    'tiny-s2l5',
    'small-s2l15',
    'base-s2l15',
    'tiny-s1l8',
]
VMAMBA = Family(
    folder='vmamba',
    model='vmamba',
    archs={
        'vanilla-tiny': Arch(
            96, 0.1, 0.1, 'v0cls/vssmtiny_dp01_ckpt_epoch_292', ema=False
        ),
        'vanilla-small': Arch(
            96, 0.3, 0.1, 'v0cls/vssmsmall_dp03_ckpt_epoch_238'
        ),
        # Its detector took 16 GPUs.
        'vanilla-base': Arch(
            128, 0.6, 0.1, 'v0cls/vssmbase_dp06_ckpt_epoch_241', per_gpu=1
        ),
        'tiny-s2l5': Arch(96, 0.2, 0.2, 'v2cls/vssm_tiny_0230_ckpt_epoch_262'),
        'small-s2l15': Arch(
            96, 0.3, 0.3, 'v2cls/vssm_small_0229_ckpt_epoch_222'
        ),
        'base-s2l15': Arch(
            128, 0.6, 0.6, 'v2cls/vssm_base_0229_ckpt_epoch_237'
        ),
        'tiny-s1l8': Arch(
            96, 0.2, 0.2, 'v2cls/vssm1_tiny_0230s_ckpt_epoch_264'
        ),
        'small-s1l20': Arch(
            96, 0.3, None, 'v2cls/vssm1_small_0229s_ckpt_epoch_240'
        ),
        'base-s1l20': Arch(
            128, 0.5, None, 'v2cls/vssm1_base_0229s_ckpt_epoch_225'
        ),
    },
    detectors={
        '1x': _VMAMBA_DOWNSTREAM,
        'ms-crop-3x': [
            a for a in _VMAMBA_DOWNSTREAM if not a.partition('base')[1]
        ],
    },
    segmentors={
        '512x512': _VMAMBA_DOWNSTREAM,
        '640x640': ['vanilla-small', 'small-s2l15'],
    },
    weights='https://github.com/MzeroMiko/VMamba/releases/download/%23',
    norms=_vmamba_norms,
    decayed={'A_logs', 'x_proj_weight', 'dt_projs_weight', 'dt_projs_bias'},
    free={'Ds'},
    # Relative to the image itself.
    tta_sizes=[(60 * r, 80 * r) for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
    evaluation_sizes=(384, 512, 640, 768, 1024),
    evaluation_arch='tiny-s1l8',
)
SPATIAL_MAMBA = Family(
    folder='spatial_mamba',
    model='spatial-mamba',
    archs={
        'tiny': Arch(64, 0.2, 0.2, 'tiny', mesa=1.0),
        'small': Arch(64, 0.3, 0.3, 'small', mesa=1.5),
        'base': Arch(96, 0.5, 0.5, 'base', mesa=2.0),
    },
    detectors={
        '1x': ['tiny', 'small', 'base'],
        'ms-crop-3x': ['tiny', 'small'],
    },
    segmentors={'512x512': ['tiny', 'small', 'base']},
    weights='checkpoints/spatial-mamba-',
    norms=_spatial_mamba_norms,
    decayed={'A_logs', 'x_proj_weight', 'dt_projs_weight', 'fusion_weight'},
    free={'Ds', 'dt_projs_bias', 'fusion_alpha'},
    # Relative to the test's size: a short side of 512.
    tta_sizes=[(384, 512), (512, 683), (640, 853)],
)
_LOCAL_MAMBA = Recipe(
    weight_decay=0.04,
    clip_grad=None,
    amp=False,
    mixup=0.2,
    rate=local_mamba_rate,
    ema=None,
)
_LOCAL_MAMBA_WEIGHTS = (
    'https://github.com/hunto/LocalMamba/releases/download/v1.0.0/'
)
LOCAL_VMAMBA = Family(
    folder='local_mamba',
    model='local-vmamba',
    archs={
        'tiny': Arch(
            96,
            0.2,
            0.2,
            'checkpoints/local-vmamba-tiny',
            segmentor_drop_path=0.1,
            amp=('detector',),
        ),
        'small': Arch(
            96,
            0.2,
            0.2,
            f'{_LOCAL_MAMBA_WEIGHTS}local_vssm_small.ckpt',
            amp=('detector', 'segmentor'),
        ),
    },
    detectors={'1x': ['tiny', 'small'], 'ms-crop-3x': ['tiny', 'small']},
    segmentors={'512x512': ['tiny', 'small']},
    weights='',
    norms=_local_vmamba_norms,
    decayed={'A_logs', 'x_proj_weight', 'dt_projs_weight', 'dt_projs_bias'},
    free={'Ds'},
    tta_sizes=VMAMBA.tta_sizes,
    recipe=replace(_LOCAL_MAMBA, amp=True),
    others=tuple(
        f'local-vmamba-{arch}-search_8xb128_in1k' for arch in ('tiny', 'small')
    ),
)
_PLAIN = dict(
    plain=True,
    decayed={'A_logs', 'x_proj_weight', 'dt_projs_weight', 'conv_weight'},
    free={'Ds', 'dt_projs_bias', 'conv_bias'},
    tokens=('backbone.pos_embed', 'backbone.cls_token'),
)
LOCAL_VIM = Family(
    folder='local_mamba',
    model='local-vim',
    archs={
        'tiny': Arch(
            192, 0.1, 0.1, f'{_LOCAL_MAMBA_WEIGHTS}local_vim_tiny.ckpt'
        ),
        'tiny-midcls': Arch(192, 0.1, None, ''),
        'small': Arch(384, 0.1, 0.1, 'checkpoints/local-vim-small'),
    },
    weights='',
    recipe=_LOCAL_MAMBA,
    others=(
        'local-vim-tiny-search_8xb128_in1k',
        'cascade-mask-rcnn_local-vim-tiny_simple-fpn_lsj-100e_coco',
        'cascade-mask-rcnn_local-vim-small_simple-fpn_lsj-100e_coco',
        'local-vim-tiny-in1k-pre_upernet_4xb4-160k_ade20k-512x512',
        'local-vim-small-in1k-pre_upernet_4xb4-160k_ade20k-512x512',
    ),
    **_PLAIN,
)
VIM = Family(
    folder='vim',
    model='vim',
    archs={
        'tiny': Arch(192, 0.0, 0.1, 'tiny', weight_decay=0.1),
        'small': Arch(384, 0.05, 0.1, 'small', batch=64),
        'base': Arch(768, 0.1, None, 'base'),
    },
    weights='checkpoints/vim-',
    recipe=Recipe(
        clip_grad=None,
        amp=False,
        rate=vim_rate,
        ema=4e-5,
        sampler='RepeatAugSampler',
    ),
    others=(
        'vim-tiny-in1k-pre_upernet_4xb8-60k_ade20k-512x512',
        'vim-small-in1k-pre_upernet_4xb8-60k_ade20k-512x512',
    ),
    **_PLAIN,
)
# Without an original: GrootV's recipe in classification, and everywhere else
# that which its authors' tables are compared with.
FRACTAL_MAMBA = Family(
    folder='fractal_mamba',
    model='fractal-mamba',
    archs={'tiny': Arch(80, 0.1, 0.1, 'tiny')},
    detectors={'1x': ['tiny'], 'ms-crop-3x': ['tiny']},
    segmentors={'512x512': ['tiny']},
    weights='checkpoints/fractal-mamba-',
    norms=_fractal_mamba_norms,
    decayed={'A_logs', 'x_proj_weight', 'dt_projs_weight', 'dt_projs_bias'},
    free={'Ds'},
    tta_sizes=VMAMBA.tta_sizes,
    # A cosine under a ramp multiplies it in mmengine.
    recipe=Recipe(rate=grootv_rate, rate_error=8.5e-3, short_edge=224),
    others=('fractal-mamba-tiny-routes_8xb128_in1k',),
    conv_head=960,
    evaluation_sizes=VMAMBA.evaluation_sizes,
    evaluation_arch='tiny',
)
FAMILIES = [
    VMAMBA,
    SPATIAL_MAMBA,
    LOCAL_VMAMBA,
    LOCAL_VIM,
    VIM,
    FRACTAL_MAMBA,
]


def classifiers() -> list:
    """Parameters of a test: (family, arch) of every classifier."""
    return [
        pytest.param(family, arch, id=f'{family}-{arch}')
        for family in FAMILIES
        for arch in family.archs
    ]


def detectors() -> list:
    """Parameters of a test: (family, schedule, arch) of every detector."""
    return _downstream('detectors')


def segmentors() -> list:
    """Parameters of a test: (family, size, arch) of every segmentor."""
    return _downstream('segmentors')


def _downstream(task: str) -> list:
    return [
        pytest.param(family, recipe, arch, id=f'{family}-{arch}-{recipe}')
        for family in FAMILIES
        for recipe, arch in family.find(task)
    ]
