"""The device that a tool or a layer runs on."""

from contextlib import AbstractContextManager, nullcontext

import torch

from .errors import ConfigError


def find_device(name: torch.device | str | None = None) -> torch.device:
    """Choose a device, or check that the given one can be used.

    Args:
        name (torch.device | str, optional): ``cpu``, ``cuda`` or ``cuda:N``.
            Defaults to the first GPU, or the CPU if there is none.

    Returns:
        torch.device: A device that exists.

    Raises:
        ConfigError: There is no such device, or mmssm has no ops for it.
    """
    if name is None:
        name = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f'--device {name}: no such device; give cpu, or cuda:0 and so on'
        ) from error
    if device.type not in ('cpu', 'cuda'):
        # PyTorch knows names of devices for which there are no ops.
        raise ConfigError(
            f'--device {name}: models run on CPUs and NVIDIA GPUs only; give '
            'cpu, or cuda:0 and so on'
        )
    count = torch.cuda.device_count()
    if device.type == 'cuda' and (device.index or 0) >= count:
        raise ConfigError(
            f'--device {name}: PyTorch finds {count} GPUs; give cpu, or one '
            'that is there'
        )
    return device


def without_autocast(device: torch.device) -> AbstractContextManager:
    """A context in which no operation on the device is autocast."""
    if device.type == 'meta':  # which has no autocast
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
