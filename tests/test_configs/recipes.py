"""How the tests of the recipes describe and read configs."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope

import mmssm

CONFIGS = Path(__file__).parents[2] / 'configs'


def swin_rate(epoch: float) -> float:
    """Swin's learning rate after some epochs, and VMamba's."""
    if epoch < 20:
        return 1e-6 + (1e-3 - 1e-6) * epoch / 20
    return _cosine((epoch - 20) / 280, 1e-3, 1e-5)


def local_mamba_rate(epoch: float) -> float:
    """LocalMamba's: its warm-up takes one step per epoch."""
    if epoch < 20:
        return 1e-7 + (1e-3 - 1e-7) * int(epoch) / 20
    return _cosine((epoch - 20) / 280, 1e-3, 1e-6)


def grootv_rate(epoch: float) -> float:
    """GrootV's: the cosine goes on under the warm-up, timm's default."""
    if epoch < 20:
        return 1e-6 + (1e-3 - 1e-6) * epoch / 20
    return _cosine(epoch / 300, 1e-3, 1e-5)


def vim_rate(epoch: float) -> float:
    """Vim's, per epoch; the cosine goes on under the warm-up."""
    epoch = int(epoch)
    if epoch < 5:
        return 1e-6 + (1e-3 - 1e-6) * epoch / 5
    return _cosine(epoch / 300, 1e-3, 1e-5)


def _cosine(share: float, first: float, last: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


class Arch(NamedTuple):
    """What the recipes of one arch differ in."""

    width: int  # the first stage's channels
    drop_path: float  # of the classifier
    downstream: float | None  # drop path of detectors, segmentors; None: none
    weights: str  # file of the classifier, .pth where it has no other ending
    ema: bool = True
    mesa: float | None = None
    per_gpu: int = 2  # images in detection
    segmentor_drop_path: float | None = None  # where it is not downstream's
    amp: tuple[str, ...] = ()  # of 'detector', 'segmentor'
    batch: int = 128  # images per GPU in classification
    weight_decay: float | None = None  # of the classifier, not the recipe's


@dataclass(frozen=True)
class Recipe:
    """How classifiers of a family are trained. Defaults to Swin's recipe."""

    weight_decay: float = 0.05
    clip_grad: dict | None = field(default_factory=lambda: dict(max_norm=5.0))
    amp: bool = True
    mixup: float = 0.8
    rate: Callable[[float], float] = swin_rate
    # Libraries differ in whether a ramp ends with its last step or after it.
    rate_error: float = 5e-3
    ema: float | None = 1e-4
    sampler: str = 'DefaultSampler'
    short_edge: int = 256  # of the images that tests cut 224 x 224 from


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family's published models."""

    folder: str
    model: str
    archs: dict[str, Arch]
    weights: str  # what an arch's weights complete
    recipe: Recipe = Recipe()
    # What the authors published: schedule or crop -> archs.
    detectors: dict[str, list[str]] = field(default_factory=dict)
    segmentors: dict[str, list[str]] = field(default_factory=dict)
    # Stems of other configs of theirs, with tests of their own.
    others: tuple[str, ...] = ()
    # Whether a detector's parameter is called a norm in the original, for one
    # arch, and the number of such norms.
    norms: Callable[[str], tuple[re.Pattern, int]] | None = None
    # Kinds of the mixer's parameters with and without decay in classifiers.
    decayed: set[str]
    free: set[str]
    # Parameters of more than one dimension without decay in classifiers.
    tokens: tuple[str, ...] = ()
    # Heights and widths of a 60x80 label map's image in segmentation's TTA.
    tta_sizes: list[tuple[float, float]] = field(default_factory=list)
    # Whether there is one scale, of a transformer's kind, instead of four.
    plain: bool = False
    # Channels of the convolution in a classifier's head, if there is one.
    conv_head: int | None = None
    # Image sizes of the configs that only evaluate, and their arch.
    evaluation_sizes: tuple[int, ...] = ()
    evaluation_arch: str = ''

    def __str__(self) -> str:
        return self.model

    def config(self, name: str) -> Config:
        return _parsed(CONFIGS / self.folder / f'{name}.py')

    def classifier(self, arch: str) -> Config:
        return self.config(self.classifier_name(arch))

    def classifier_name(self, arch: str) -> str:
        return f'{self.model}-{arch}_8xb{self.archs[arch].batch}_in1k'

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

    def find(self, task: str) -> list[tuple[str, str]]:
        """(schedule or crop, arch) of the configs that follow a recipe.

        Configs of models that nobody published are among them.
        """
        if self.plain:
            return []
        pattern = dict(
            detectors=rf'mask-rcnn_{self}-(?P<arch>.+)_fpn_(?P<recipe>.+)_coco',
            segmentors=rf'{self}-(?P<arch>.+)-in1k-pre_upernet_4xb4-160k_'
            'ade20k-(?P<recipe>.+)',
        )[task]
        names = sorted(p.stem for p in (CONFIGS / self.folder).glob('*.py'))
        found = [re.fullmatch(pattern, name) for name in names]
        return [(match['recipe'], match['arch']) for match in found if match]

    def config_names(self) -> set[str]:
        """The stems of the configs for what the authors published."""
        px = [
            f'{self}-{self.evaluation_arch}_8xb128_in1k-{size}px'
            for size in self.evaluation_sizes
        ]
        detectors = [
            f'mask-rcnn_{self}-{arch}_fpn_{schedule}_coco'
            for schedule, archs in self.detectors.items()
            for arch in archs
        ]
        segmentors = [
            f'{self}-{arch}-in1k-pre_upernet_4xb4-160k_ade20k-{size}'
            for size, archs in self.segmentors.items()
            for arch in archs
        ]
        classifiers = [self.classifier_name(arch) for arch in self.archs]
        return {*classifiers, *px, *detectors, *segmentors, *self.others}

    @property
    def backbone(self) -> type:
        return {
            'vmamba': mmssm.VMamba,
            'spatial-mamba': mmssm.SpatialMamba,
            'local-vmamba': mmssm.LocalVMamba,
            'local-vim': mmssm.LocalVim,
            'vim': mmssm.Vim,
            'fractal-mamba': mmssm.FractalMamba,
        }[self.model]

    def features(self, arch: str) -> int:
        """Channels that a classifier's head gets."""
        return self.archs[arch].width * (1 if self.plain else 8)

    def drop_path(self, cfg: Config) -> float:
        backbone = cfg.model.backbone
        settings = self.backbone.arch_settings[backbone.arch]
        return backbone.get('drop_path_rate', settings['drop_path_rate'])

    def check_backbone(
        self, cfg: Config, arch: str, drop_path: float | None = None
    ) -> None:
        """A detector's or segmentor's backbone is the one released."""
        backbone = cfg.model.backbone
        assert backbone.type == self.backbone.__name__
        assert backbone.arch == arch
        if not self.plain:
            assert backbone.out_indices == (0, 1, 2, 3)
        expected = (
            self.archs[arch].downstream if drop_path is None else drop_path
        )
        if expected is not None:  # the authors have such a model
            assert self.drop_path(cfg) == expected
        # What the released code gets wrong is for its own weights alone.
        assert 'released_inverse' not in backbone
        file = self.weights + self.archs[arch].weights
        assert backbone.init_cfg == dict(
            type='Pretrained',
            checkpoint=file if file.endswith('.ckpt') else f'{file}.pth',
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


def parameter_groups(cfg: Config) -> dict[str, tuple]:
    """Each parameter with its learning rate and its decay, by name."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        # Mixed precision needs a GPU and changes nothing here.
        settings = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
        optimizer = build_optim_wrapper(model, settings).optimizer
    settings = {
        id(param): (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for param in group['params']
    }
    return {
        name: (param, *settings[id(param)])
        for name, param in model.named_parameters()
    }


def decayed(cfg: Config) -> tuple[dict, dict]:
    """The parameters, by name, with and without weight decay."""
    full = cfg.optim_wrapper.optimizer.weight_decay
    names = {True: {}, False: {}}
    for name, (param, _, decay) in parameter_groups(cfg).items():
        assert decay in (0.0, full)
        names[decay > 0][name] = param
    return names[True], names[False]


def learning_rates(cfg: Config, epoch_length: int) -> np.ndarray:
    """The learning rate of every step of a training by epochs."""
    optimizer = torch.optim.SGD(
        [torch.nn.Parameter(torch.zeros(1))], cfg.optim_wrapper.optimizer.lr
    )
    wrapper = OptimWrapper(optimizer)
    schedulers = [
        PARAM_SCHEDULERS.build(
            scheduler,
            default_args=dict(optimizer=wrapper, epoch_length=epoch_length),
        )
        for scheduler in cfg.param_scheduler
    ]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        for _ in range(epoch_length):
            rates.append(optimizer.param_groups[0]['lr'])
            wrapper.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return np.array(rates)


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
