"""Run several processes, with or without GPUs.

mmengine's launcher selects a CUDA device, which fails on a CPU. Here the
process group is started before mmengine does it. ``ScopedRunner`` does the
rest on CPUs.
"""

import ctypes
import os
import signal
import sys

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.registry import RUNNERS
from mmengine.utils.dl_utils import set_multi_processing

from mmssm.utils import ConfigError
from mmssm.utils.config import registered, type_name

from .on_cpu import check_wrapper
from .scoped_runner import ScopedRunner

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Prepare a config and this process for a launcher.

    Args:
        cfg (Config): The config to run; changed in place.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ConfigError: The launcher did not start this process, needs a GPU but
            there is none, or started more processes than there are GPUs. On
            CPUs: the model's wrapper or the runner needs GPUs.
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
    else:
        _check_runner(cfg)
        check_wrapper(cfg)
    _start_group(cfg, launcher, on_gpus)


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


def _check_runner(cfg: Config) -> None:
    if 'runner_type' not in cfg:
        return
    kind = registered(
        RUNNERS, dict(type=cfg.runner_type), cfg.get('default_scope')
    )
    if kind is not None and not issubclass(kind, ScopedRunner):
        raise ConfigError(
            f'runner_type={type_name(cfg.runner_type)} needs GPUs to run as '
            'several processes; on CPUs leave it out, or make it a subclass '
            'of mmssm.engine.ScopedRunner'
        )
