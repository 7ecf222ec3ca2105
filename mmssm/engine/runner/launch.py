"""Run several processes, with or without GPUs.

mmengine's launcher selects a CUDA device and passes its number to
``DistributedDataParallel``; both fail on a CPU. Here the process group is
started before mmengine does it, and on a CPU the wrapper gets no device
numbers.
"""

import ctypes
import os
import signal
import sys

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import set_multi_processing

from mmssm.utils import ConfigError
from mmssm.utils.errors import warn

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_DDP = 'MMDistributedDataParallel'


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Prepare a config and this process for a launcher.

    Args:
        cfg (Config): The config to run; changed in place.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ConfigError: The launcher did not start this process, needs a GPU but
            there is none, or started more processes than there are GPUs.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ConfigError(
            '--launcher pytorch is for processes that torchrun starts; run '
            'tools/dist_train.sh or tools/dist_test.sh instead'
        )
    if launcher == 'pytorch':
        _end_with_launcher()
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        _check_devices(launcher)
    elif launcher != 'pytorch':
        raise ConfigError(
            f'--launcher {launcher} needs GPUs, but PyTorch finds none; '
            'on CPUs use tools/dist_train.sh or tools/dist_test.sh'
        )
    _start_group(cfg, launcher, on_gpus)
    if not on_gpus:
        _use_cpu_wrapper(cfg)
        _replace_sync_bn(cfg)


def _end_with_launcher() -> None:
    """End this process when torchrun ends, also if torchrun is killed.

    Otherwise the processes of a killed torchrun continue, and write to the
    folder in which the user resumes.
    """
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _check_devices(launcher: str) -> None:
    devices = torch.cuda.device_count()
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if launcher == 'pytorch' and processes > devices:
        raise ConfigError(
            f'{processes} processes were asked for on this machine, but it '
            f'has {devices} GPU(s); give a smaller number, or run on the '
            'CPU with CUDA_VISIBLE_DEVICES='
        )


def _start_group(cfg: Config, launcher: str, on_gpus: bool) -> None:
    if dist.is_initialized():
        return
    settings = cfg.get('env_cfg') or {}
    # First, as in mmengine: the group fixes the processes' start method.
    set_multi_processing(**settings.get('mp_cfg', {}), distributed=True)
    if on_gpus:
        init_dist(launcher, **settings.get('dist_cfg', {}))
    else:
        dist.init_process_group('gloo')


def _use_cpu_wrapper(cfg: Config) -> None:
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper.setdefault('type', _DDP)
    if wrapper.type != _DDP:
        raise ConfigError(
            f'model_wrapper_cfg.type={wrapper.type} needs GPUs; on CPUs only '
            f'{_DDP} works'
        )
    wrapper.device_ids = None
    cfg.model_wrapper_cfg = wrapper


def _replace_sync_bn(cfg: Config) -> None:
    """Use BN on CPUs; SyncBN needs GPUs. Weights have the same names."""
    if _rename_type(cfg.model, 'SyncBN', 'BN'):
        warn('SyncBN runs on GPUs only; BN is used instead')


def _rename_type(node, old: str, new: str) -> bool:
    """Rename every ``type=old`` in a config; return whether there is one."""
    if isinstance(node, (list, tuple)):
        return any([_rename_type(item, old, new) for item in node])
    if not isinstance(node, dict):
        return False
    found = node.get('type') == old
    if found:
        node['type'] = new
    return any([_rename_type(v, old, new) for v in node.values()]) or found
