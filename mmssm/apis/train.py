"""Training from a config file."""

import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmssm.engine import PartialLoadHook
from mmssm.engine.runner.launch import prepare_launch
from mmssm.engine.runner.resume import prepare_resume
from mmssm.engine.runner.scoped_runner import ScopedRunner
from mmssm.utils import ConfigError
from mmssm.utils.config import (
    load_config,
    require,
    type_name,
)
from mmssm.utils.errors import warn

from .annotations import check_annotations
from .model_checks import check_channels, check_num_classes
from .preflight import check_data, check_layer_decay, check_weights

_MMENGINE_HOOK = ('CheckpointHook', 'mmengine.CheckpointHook')


def train(
    config: str,
    work_dir: str | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    options: dict | None = None,
    launcher: str = 'none',
) -> None:
    """Train the model of a config.

    Args:
        config (str): Config file for mmdet, mmseg or mmpretrain.
        work_dir (str, optional): Where logs and checkpoints go. Defaults to
            the config's own, else ``work_dirs/<config's name>``.
        resume (str, optional): A checkpoint to continue from, or ``'auto'``
            for the newest one in the work directory.
        amp (bool): Train with automatic mixed precision; without a GPU, in
            bfloat16 on the CPU.
        auto_scale_lr (bool): Scale the learning rate with the batch size.
        options (dict, optional): Config values to overwrite.
        launcher (str): What started this process: ``'none'``, ``'pytorch'``,
            ``'slurm'`` or ``'mpi'``.

    Raises:
        ConfigError: The config, its data or an option is unusable.
        CheckpointError: The checkpoint to resume from is unusable.
    """
    cfg = load_config(config, options, work_dir)
    require(
        cfg,
        'model',
        'train_dataloader',
        'train_cfg',
        'optim_wrapper',
        purpose='training',
    )
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _scale_lr(cfg)
    _use_atomic_checkpoints(cfg)
    _prepare_amp(cfg)
    check_layer_decay(cfg)
    check_data(cfg, 'train', 'val')
    check_weights(cfg)
    check_num_classes(cfg, 'train', 'val')
    check_annotations(cfg, 'train', 'val')
    prepare_launch(cfg, launcher)
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    if resume is not None:
        prepare_resume(cfg, resume)
    runner = build_runner(cfg)
    check_channels(cfg, runner.model)
    if not any(isinstance(hook, PartialLoadHook) for hook in runner.hooks):
        runner.register_hook(PartialLoadHook())
    runner.train()


def build_runner(cfg: Config) -> Runner:
    """Build mmssm's runner, or the one that ``runner_type`` names.

    The latter looks up its parts in the current default scope.
    """
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return ScopedRunner.from_cfg(cfg)


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in (
        'OptimWrapper',
        'AmpOptimWrapper',
    ):
        raise ConfigError(
            f'--amp replaces OptimWrapper, but the config uses {wrapper.type};'
            ' set mixed precision there'
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def _prepare_amp(cfg: Config) -> None:
    """Without a GPU, let mixed precision run on the CPU, in bfloat16."""
    wrapper = cfg.optim_wrapper
    kind = type_name(wrapper.get('type', 'OptimWrapper'))
    if kind != 'AmpOptimWrapper' or torch.cuda.is_available():
        return
    dtype = wrapper.pop('dtype', None)
    if dtype not in (None, 'bfloat16'):
        raise ConfigError(
            f'config {cfg.filename} trains in mixed precision with {dtype}, '
            'which needs a GPU, but PyTorch finds none; CPUs take '
            '--cfg-options optim_wrapper.dtype=bfloat16'
        )
    for of_gpus in ('loss_scale', 'use_fsdp'):
        wrapper.pop(of_gpus, None)
    wrapper.type = 'CPUAmpOptimWrapper'
    warn('mixed precision on a CPU: PyTorch finds no GPU; using bfloat16')


def _scale_lr(cfg: Config) -> None:
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ConfigError(
            '--auto-scale-lr needs the batch size that the learning rate was '
            'chosen for; add auto_scale_lr=dict(base_batch_size=...) to '
            f'{cfg.filename}'
        )
    cfg.auto_scale_lr.enable = True


def _use_atomic_checkpoints(cfg: Config) -> None:
    """Put AtomicCheckpointHook where the config has mmengine's own hook."""
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    if 'checkpoint' not in cfg.default_hooks:
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    hook = cfg.default_hooks.checkpoint
    if hook is not None and hook.type in _MMENGINE_HOOK:
        hook.type = 'AtomicCheckpointHook'
