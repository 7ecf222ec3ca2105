"""What the tests of the recipes share: tables and reading of configs.

The tables hold what the original authors' settings say.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

import mmssm

CONFIGS = Path(__file__).parents[2] / 'configs'


class Arch(NamedTuple):
    """What the recipes of one arch differ in."""

    width: int  # the first stage's channels
    drop_path: float  # of the classifier
    downstream: float | None  # drop path of detectors, segmentors; None: none
    weights: str  # file of the classifier, without .pth
    ema: bool = True
    mesa: float | None = None
    per_gpu: int = 2  # images in detection


@dataclass(frozen=True)
class Family:
    """One family's published models."""

    folder: str
    model: str
    archs: dict[str, Arch]
    # Schedule or crop -> archs.
    detectors: dict[str, list[str]]
    segmentors: dict[str, list[str]]
    weights: str  # what an arch's weights complete
    # Whether a detector's parameter is called a norm in the original, for one
    # arch, and the number of such norms.
    norms: Callable[[str], tuple[re.Pattern, int]]
    # Kinds of the mixer's parameters with and without decay in classifiers.
    decayed: set[str]
    free: set[str]
    # Heights and widths of a 60x80 label map's image in segmentation's TTA.
    tta_sizes: list[tuple[float, float]]
    # Image sizes of the configs that only evaluate, and their arch.
    evaluation_sizes: tuple[int, ...] = ()
    evaluation_arch: str = ''

    def __str__(self) -> str:
        return self.model

    def config(self, name: str) -> Config:
        return _parsed(CONFIGS / self.folder / f'{name}.py')

    def classifier(self, arch: str) -> Config:
        return self.config(f'{self.model}-{arch}_8xb128_in1k')

    def evaluation(self, px: int) -> Config:
        name = f'{self.model}-{self.evaluation_arch}_8xb128_in1k-{px}px'
        return self.config(name)

    def detector(self, schedule: str, arch: str) -> Config:
        return self.config(
            f'mask-rcnn_{self.model}-{arch}_fpn_{schedule}_coco'
        )

    def segmentor(self, size: str, arch: str) -> Config:
        return self.config(
            f'{self.model}-{arch}-in1k-pre_upernet_4xb4-160k_ade20k-{size}'
        )

    @property
    def backbone(self) -> type:
        kinds = dict(vmamba=mmssm.VMamba, spatial_mamba=mmssm.SpatialMamba)
        return kinds[self.folder]

    def drop_path(self, cfg: Config) -> float:
        backbone = cfg.model.backbone
        settings = self.backbone.arch_settings[backbone.arch]
        return backbone.get('drop_path_rate', settings['drop_path_rate'])

    def check_backbone(self, cfg: Config, arch: str) -> None:
        """A detector's or segmentor's backbone is the one released."""
        backbone = cfg.model.backbone
        assert backbone.type == self.backbone.__name__
        assert backbone.arch == arch
        assert backbone.out_indices == (0, 1, 2, 3)
        assert self.drop_path(cfg) == self.archs[arch].downstream
        assert backbone.init_cfg == dict(
            type='Pretrained',
            checkpoint=f'{self.weights}{self.archs[arch].weights}.pth',
        )

    def check_norms_are_free_of_decay(self, cfg: Config, arch: str) -> None:
        """What the original calls norm is free of decay, and that alone."""
        called_norm, number = self.norms(arch)
        with_decay, without = decayed(cfg)
        assert all(called_norm.fullmatch(name) for name in without)
        assert not any(called_norm.fullmatch(name) for name in with_decay)
        assert len(without) == 2 * number  # weight and bias


@cache
def _parsed(path: Path) -> Config:
    return Config.fromfile(path, import_custom_modules=False)


def decayed(cfg: Config) -> tuple[dict, dict]:
    """The parameters, by name, with and without weight decay."""
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


def views_of(cfg: Config, image: np.ndarray, **results) -> dict:
    """What a config's TTA pipeline makes of an image that is loaded."""
    results = dict(
        img=image,
        img_shape=image.shape[:2],
        ori_shape=image.shape[:2],
        **results,
    )
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Compose(cfg.tta_pipeline[1:])(results)


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
        r'stages\.[012]\.downsample\.conv\.2\.bn',
        r'stages\.\d\.blocks\.\d+\.mixer\.out_norm',
    )
    return pattern, 4 + 5 + 3 + blocks


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
FAMILIES = [VMAMBA, SPATIAL_MAMBA]


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
        for recipe, archs in getattr(family, task).items()
        for arch in archs
    ]
