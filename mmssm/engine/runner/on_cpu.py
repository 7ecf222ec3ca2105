"""Run a model in several processes on CPUs."""

from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmssm.utils import ConfigError
from mmssm.utils.config import registered, type_name
from mmssm.utils.errors import warn


def check_wrapper(cfg: Config) -> None:
    """Refuse a wrapper of the model that needs GPUs.

    Args:
        cfg (Config): The config to run.

    Raises:
        ConfigError: It is not mmengine's ``MMDistributedDataParallel``.
    """
    wrapper = cfg.get('model_wrapper_cfg')
    if not wrapper:
        return
    wanted = MMDistributedDataParallel
    scope = cfg.get('default_scope')
    kind = registered(MODEL_WRAPPERS, wrapper, scope, wanted.__name__)
    if kind is not wanted:
        raise ConfigError(
            f'model_wrapper_cfg.type={type_name(wrapper.type)} needs GPUs; on '
            f'CPUs only {wanted.__name__} works'
        )


def wrap_on_cpu(cfg: Config, model: nn.Module) -> nn.Module:
    """Wrap a model for several processes on CPUs.

    SyncBN, which needs GPUs, becomes BN; the weights have the same names.

    Args:
        cfg (Config): The config to run, which :func:`check_wrapper` passed.
        model (nn.Module): The model; changed in place.

    Returns:
        nn.Module: mmengine's ``MMDistributedDataParallel``.
    """
    if cfg.get('sync_bn') or any(
        type(module).__name__ == 'SyncBatchNorm' for module in model.modules()
    ):
        warn('SyncBN runs on GPUs only; BN is used instead')
    given = cfg.get('model_wrapper_cfg') or dict(
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    others = ('type', '_scope_', 'device_ids')
    settings = {k: v for k, v in given.items() if k not in others}
    return MMDistributedDataParallel(revert_sync_batchnorm(model), **settings)
