"""Refusing a checkpoint that does not fit the model exactly."""

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import CheckpointLoader
from torch import nn

from mmssm.backbones.base import SSMBackbone
from mmssm.backbones.fitting import Fit, compare
from mmssm.checkpoint import locate_checkpoint
from mmssm.utils import CheckpointError

_SHOWN = 4


def open_checkpoint(checkpoint: str) -> dict:
    """Open a checkpoint on the CPU, converting an original author's.

    Args:
        checkpoint (str): A file or address.

    Returns:
        dict: The checkpoint.

    Raises:
        CheckpointError: The file cannot be read or holds no weights by name.
    """
    checkpoint = locate_checkpoint(checkpoint)
    content = CheckpointLoader.load_checkpoint(
        checkpoint, map_location='cpu', logger='silent'
    )
    if not isinstance(content, dict):
        raise CheckpointError(
            f'{checkpoint} holds a {type(content).__name__}, not weights by '
            'name; give a checkpoint of the model'
        )
    return content


def load_exactly(model: nn.Module, checkpoint: dict) -> None:
    """Load weights that are exactly a model's, for use in one process.

    Args:
        model (nn.Module): Changed in place; its SyncBN, which runs on GPUs
            and in several processes only, becomes plain BN.
        checkpoint (dict): ``{'state_dict': ...}`` or the state dict itself.

    Raises:
        CheckpointError: Names the missing, unknown and wrongly shaped keys.
    """
    check_fits(model, checkpoint)
    state = checkpoint.get('state_dict', checkpoint)
    model.load_state_dict(
        {key.removeprefix('module.'): value for key, value in state.items()},
        # Step counters that old files lack; everything else was checked.
        strict=False,
    )
    revert_sync_batchnorm(model)


def check_fits(model: nn.Module, checkpoint: dict) -> None:
    """Compare a checkpoint's keys and shapes with a model's.

    Args:
        model (nn.Module): The model to be loaded.
        checkpoint (dict): ``{'state_dict': ...}`` or the state dict itself.

    Raises:
        CheckpointError: Names the missing, unknown and wrongly shaped keys.
    """
    state = checkpoint.get('state_dict', checkpoint)
    given = {
        key.removeprefix('module.'): value
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    for name, module in model.named_modules():
        if isinstance(module, SSMBackbone):
            given.update(_fit_positions(module, f'{name}.', given))
    problems = _differences(compare(model.state_dict(), given))
    if not problems:
        return
    origin = (checkpoint.get('meta') or {}).get('mmssm')
    holds = (
        f' (it holds {origin["family"]} {origin["arch"]})' if (origin) else ''
    )
    raise CheckpointError(
        f'the checkpoint does not fit the model of the config{holds}: '
        f'{"; ".join(problems)}; use the config that belongs to the '
        'checkpoint'
    )


def _fit_positions(
    backbone: SSMBackbone, prefix: str, given: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A backbone's weights in a model, as loading will fit them."""
    own = {
        key[len(prefix) :]: value
        for key, value in given.items()
        if key.startswith(prefix)
    }
    fitted = backbone.fit_positions(own)
    return {prefix + key: value for key, value in fitted.items()}


def _differences(fit: Fit) -> list[str]:
    missing = [
        key
        for key in fit.missing
        # BatchNorm's step counter came with torch 0.4 and is not a weight.
        if not key.endswith('num_batches_tracked')
    ]
    shapes = [
        f'{key} is {tuple(fit.given[key])} instead of {tuple(fit.own[key])}'
        for key in fit.reshaped
    ]
    return [
        f'{len(keys)} {title}: {_some(keys)}'
        for title, keys in (
            ('missing', missing),
            ('unknown', fit.unknown),
            ('of wrong shape', shapes),
        )
        if keys
    ]


def _some(names: list[str]) -> str:
    more = f', ... ({len(names) - _SHOWN} more)' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more
