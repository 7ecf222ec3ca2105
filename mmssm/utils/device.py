"""The device that a tool runs a model on."""

import torch

from .errors import ConfigError


def find_device(name: torch.device | str | None = None) -> torch.device:
    """Check a device before anything is loaded for it.

    Args:
        name (torch.device | str, optional): ``cpu``, ``cuda`` or ``cuda:N``.
            Defaults to the first GPU, to the CPU where there is none.

    Returns:
        torch.device: A device that is there.

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
        # PyTorch knows the name of more than it, or an op, was built for.
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
