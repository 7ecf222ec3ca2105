"""Mixed precision on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mmssm.utils import ConfigError, UserError
from mmssm.utils.config import registered
from mmssm.utils.errors import one_line


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under PyTorch's autocast to bfloat16 on a CPU.

    mmengine's ``AmpOptimWrapper`` needs a GPU. bfloat16 has the range of
    float32, so the loss is not scaled. Parameters and their updates stay in
    float32. It saves memory; it saves time on CPUs that compute in bfloat16
    (AMX, AVX-512 BF16). Takes the arguments of mmengine's ``OptimWrapper``.

    Raises:
        UserError: When training starts: a layer cannot compute in bfloat16 on
            a CPU, such as mmcv's RoIAlign and NMS.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Use autocast; also what mmengine's wrapper does."""
        try:
            with (
                super().optim_context(model),
                torch.autocast('cpu', torch.bfloat16),
            ):
                yield
        except RuntimeError as error:
            if 'BFloat16' not in str(error):
                raise
            raise UserError(
                f'{type(model).__name__} cannot be trained in mixed precision '
                'on a CPU, since one of its layers does not compute in '
                f'bfloat16 ({one_line(error)}); leave --amp out (or take '
                'OptimWrapper in the config), or train on a GPU'
            ) from error


def in_cpu_amp(wrapper: dict, scope: str | None) -> dict:
    """The config of a wrapper that does on a CPU what another does on a GPU.

    Args:
        wrapper (dict): The config of an optimizer wrapper; it is not changed.
        scope (str, optional): The config's ``default_scope``.

    Returns:
        dict: :class:`CPUAmpOptimWrapper`'s config for that of mmengine's
        ``AmpOptimWrapper``; any other config as it is.

    Raises:
        ConfigError: ``AmpOptimWrapper`` is to compute in another type than
            bfloat16.
    """
    if registered(OPTIM_WRAPPERS, wrapper, scope) is not AmpOptimWrapper:
        return wrapper
    dtype = wrapper.get('dtype')
    if dtype not in (None, 'bfloat16', torch.bfloat16):
        raise ConfigError(
            f'optim_wrapper trains in mixed precision with {dtype}, which '
            'needs a GPU, but PyTorch finds none; CPUs take '
            '--cfg-options optim_wrapper.dtype=bfloat16'
        )
    of_gpus = ('type', 'dtype', 'loss_scale', 'use_fsdp')
    kept = {k: v for k, v in wrapper.items() if k not in of_gpus}
    return dict(kept, type=CPUAmpOptimWrapper)
