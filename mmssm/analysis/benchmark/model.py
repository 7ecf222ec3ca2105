"""Compare backbones: mmssm's, well-known ones and those of configs."""

import functools
import importlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mmssm
from mmssm.utils import UserError
from mmssm.utils.config import load_config, require

from .measure import (
    PEAK,
    READING,
    Case,
    Result,
    Run,
    machine,
    measure,
)
from .report import (
    Report,
    growth_table,
    model_table,
)

MIN_SIZE = 4  # One token of a stride-4 stem.
# Name in timm, config in mmpretrain. Both give the last feature map.
BESIDE = {
    'swin-tiny': (
        'swin_tiny_patch4_window7_224',
        dict(type='SwinTransformer', arch='tiny', pad_small_map=True),
    ),
    'convnext-tiny': (
        'convnext_tiny',
        dict(type='ConvNeXt', arch='tiny', gap_before_final_norm=False),
    ),
    'resnet50': ('resnet50', dict(type='ResNet', depth=50)),
}
# VMamba-T's original code, a classifier; vmamba.py must be on the path.
ORIGINAL = 'vmamba-original'
# Builds a backbone for images of one size.
Builder = Callable[[int], nn.Module]


def bench_model(
    builders: dict[str, Builder],
    sizes: Sequence[int] = (224,),
    batch: int = 1,
    rounds: int = 5,
    train: bool = False,
    amp: bool = False,
    device: torch.device | str = 'cpu',
) -> Report:
    """Measure backbones on square images of several sizes.

    Weights and images are random, from a fixed seed.

    Args:
        builders (dict[str, Builder]): By name, see :func:`backbones`. The
            others are compared with the first.
        sizes (Sequence[int]): Heights and widths of the image. Defaults to
            224.
        batch (int): Images. Defaults to 1.
        rounds (int): Timed rounds. Defaults to 5.
        train (bool): Whether a step is forward and backward in training mode,
            instead of inference. Defaults to False.
        amp (bool): Whether to compute in bfloat16 under autocast. Defaults to
            False.
        device (torch.device | str): Defaults to 'cpu'.

    Returns:
        Report: Its tables are printed as soon as they are measured. ``facts``
        are ``size``, ``batch`` and ``params``, the number of parameters by
        name.

    Raises:
        UserError: If there is no image or round, or an image is smaller than
            one token.
    """
    if batch < 1:
        raise UserError(f'the batch needs at least one image, got {batch}')
    if min(sizes) < MIN_SIZE:
        raise UserError(
            f'images must be at least {MIN_SIZE} pixels wide, got {min(sizes)}'
        )
    device = torch.device(device)
    report = Report(
        _title(train, batch, amp, device),
        machine(device),
        [
            'Image in, last feature map out (of a config: the maps it asks '
            'for); no neck, no head; random weights.',
            READING.format(rounds),
            PEAK.format('weights and images'),
        ],
    )
    for size in sizes:
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(batch, 3, size, size, generator=generator)
        models = _build(builders, size, train, device)
        results = _measure(models, image.to(device), rounds, train, amp)
        params = {
            name: sum(p.numel() for p in model.parameters())
            for name, model in models.items()
        }
        facts = dict(size=size, batch=batch, params=params)
        case = Case(f'{size} px', results, facts)
        report.add(model_table(case), case)
    if len(sizes) > 1:
        report.add(growth_table(report.cases))
    return report


def _title(train: bool, batch: int, amp: bool, device: torch.device) -> str:
    step = 'forward + backward' if train else 'forward'
    dtype = 'bfloat16 autocast' if amp else 'float32'
    if device.type == 'cuda' and not amp:
        dtype += f' (products: {torch.get_float32_matmul_precision()})'
    return f'Backbones, {step}, batch {batch}, {dtype}'


def _build(
    builders: dict[str, Builder], size: int, train: bool, device: torch.device
) -> dict[str, nn.Module]:
    """Models with the same random weights each time."""
    models = {}
    for name, build in builders.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            models[name] = build(size).to(device)
        models[name].train(train)  # mmpretrain's train() returns None.
    return models


def _measure(
    models: dict[str, nn.Module],
    image: torch.Tensor,
    rounds: int,
    train: bool,
    amp: bool,
) -> list[Result]:
    phase = 'forward + backward' if train else 'forward'
    runs = [
        Run(name, {phase: _step(model, image, train, amp)}, optional=True)
        for name, model in models.items()
    ]
    runs[0].optional = False
    # cuDNN chooses the quickest algorithms, as in a long run.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        return measure(f'{image.shape[-1]} px', runs, rounds, image.device)


def _step(
    model: nn.Module, image: torch.Tensor, train: bool, amp: bool
) -> Callable[[], None]:
    """The function that is timed."""
    autocast = torch.autocast(
        image.device.type, dtype=torch.bfloat16, enabled=amp
    )

    def forward() -> tuple[torch.Tensor, ...]:
        with autocast:
            maps = model(image)
        return maps if isinstance(maps, (tuple, list)) else (maps,)

    def infer() -> None:
        with torch.inference_mode():
            forward()

    def forward_backward() -> None:
        sum(y.float().mean() for y in forward()).backward()
        model.zero_grad(set_to_none=True)

    return forward_backward if train else infer


def backbones(
    archs: Sequence[str] = (),
    configs: Sequence[str] = (),
    beside: Sequence[str] = (),
) -> dict[str, Builder]:
    """Choose the backbones to measure.

    Args:
        archs (Sequence[str]): VMamba archs, or ``TYPE:ARCH`` for any backbone
            of mmssm.
        configs (Sequence[str]): Config files; their backbones are built, no
            checkpoint is loaded.
        beside (Sequence[str]): Keys of :data:`BESIDE`, built by timm if it is
            installed, else by mmpretrain; or :data:`ORIGINAL`.

    Returns:
        dict[str, Builder]: Builders by the names that tables show.

    Raises:
        UserError: If a backbone does not exist, or neither library is there.
    """
    parts = map(_arch, archs), map(_config, configs), map(_beside, beside)
    return dict(itertools.chain(*parts))


def with_optimized(builders: dict[str, Builder], ways: Sequence[str]) -> dict:
    """Add each backbone once more optimized in each way.

    Args:
        builders (dict[str, Builder]): By name, see :func:`backbones`.
        ways (Sequence[str]): 'float32' and 'bfloat16', dtypes for
            :func:`mmssm.optimize_for_inference`; 'compiled', by torch.compile
            with constant weights.

    Returns:
        dict[str, Builder]: For each backbone itself, then its others.
    """
    every = {}
    for name, build in builders.items():
        every[name] = build
        for way in ways:
            label = way if way == 'compiled' else f'prepared, {way}'
            every[f'{name}, {label}'] = functools.partial(
                _optimized, build, way
            )
    return every


def _optimized(build: Builder, way: str, size: int) -> nn.Module:
    model = build(size)
    model.eval()
    if way == 'compiled':
        return torch.compile(model, options={'freezing': True})
    return mmssm.optimize_for_inference(model, dtype=getattr(torch, way))


def _arch(arch: str) -> tuple[str, Builder]:
    kind, _, row = arch.rpartition(':')
    kind = kind or 'VMamba'
    backbone = getattr(mmssm, kind, None)
    if not (isinstance(backbone, type) and issubclass(backbone, nn.Module)):
        known = ', '.join(n for n in mmssm.__all__ if n[0].isupper())
        raise UserError(f'mmssm has no backbone {kind!r}; known: {known}')
    backbone.parse_arch(row)
    return f'{kind} {row}', lambda size: backbone(row)


def _beside(name: str) -> tuple[str, Builder]:
    if name == ORIGINAL:
        return "VMamba tiny-s1l8 (VMamba's own code, with head)", _original()
    if name not in BESIDE:
        raise UserError(
            f'no backbone {name!r} to put beside; known: '
            f'{", ".join([*BESIDE, ORIGINAL])}'
        )
    timm_name, cfg = BESIDE[name]
    if _importable('timm'):
        return f'{name} (timm)', lambda size: _from_timm(timm_name, size)
    if _importable('mmpretrain.models'):
        return f'{name} (mmpretrain)', lambda size: _from_mmpretrain(cfg)
    raise UserError(
        f'{name} comes from timm or mmpretrain, and neither can be imported; '
        'run `pip install timm`, or name no backbone to put beside'
    )


def _original() -> Builder:
    try:
        vmamba = importlib.import_module('vmamba')
    except Exception as error:  # it needs its kernels and other packages
        raise UserError(
            f'{ORIGINAL} needs vmamba.py of github.com/MzeroMiko/VMamba '
            f'(classification/models) on the path, whose import fails: {error}'
        ) from error
    return lambda size: vmamba.vmamba_tiny_s1l8()


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _from_timm(name: str, size: int) -> nn.Module:
    import timm

    fixed_size = dict(img_size=size) if name.startswith('swin') else {}
    model = timm.create_model(name, num_classes=0, **fixed_size)
    model.forward = model.forward_features
    return model


def _from_mmpretrain(cfg: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg)


def _config(path: str) -> tuple[str, Builder]:
    cfg = load_config(path)
    require(cfg, 'model', purpose='a benchmark')
    backbone = cfg.model.get('backbone')
    if backbone is None:
        raise UserError(
            f'the model of config {path} has no backbone to time; give a '
            'config whose model has one'
        )

    def build(size: int) -> nn.Module:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            return revert_sync_batchnorm(MODELS.build(backbone))

    return Path(path).stem, build
