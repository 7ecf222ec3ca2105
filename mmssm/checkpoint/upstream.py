"""Recognising the original authors' checkpoints and converting them.

A family (VMamba, ...) is a module with these names:

``NAME`` (str)
    The family's name, as ``meta['mmssm']['family']`` holds it.
``matches(keys) -> bool``
    Whether a backbone's or classifier's state-dict keys are this family's
    original ones.
``convert(state_dict) -> (backbone, head, arch)``
    The same tensors under mmssm's names, without the ``backbone.`` and
    ``head.`` prefixes, and the ``arch`` that they fit: a name or, for a model
    that has none, a dict. Raises :class:`CheckpointError` for a key that is
    unknown or missing and for a wrong shape.
``NOTE`` (str, optional)
    A warning to whoever loads such a file.

A new family is one such module, written with :mod:`.key_map`, and its place
in ``_FAMILIES``.
"""

import logging
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import Tensor

from mmssm.utils import CheckpointError

from . import (
    groot_v,
    local_vim,
    local_vmamba,
    spatial_mamba,
    vim,
    vmamba,
)

# In the order of asking: VMamba's keys are a part of LocalVMamba's, an old
# VMamba's of Spatial-Mamba's.
_FAMILIES = (
    groot_v,
    local_vim,
    local_vmamba,
    spatial_mamba,
    vim,
    vmamba,
)

# Where the authors keep the weights, the ones they evaluate with first.
_CONTAINERS = ('state_dict', 'model', 'model_ema')

_BACKBONE = 'backbone.'

# What a detector's or segmentor's file says beside its weights, and needs.
_META_KEPT = ('dataset_meta', 'CLASSES', 'PALETTE', 'epoch', 'iter')


class _Found(NamedTuple):
    """An original's weights, out of their wrapping."""

    container: str
    backbone: dict[str, Tensor]
    others: dict[str, Tensor]  # necks and heads of a detector or segmentor


def convert_upstream(checkpoint: Any, source: str) -> dict | None:
    """Convert an original author's checkpoint to mmssm's names.

    Args:
        checkpoint (Any): What the file holds: the state dict itself or a dict
            with it under ``state_dict``, ``model`` or ``model_ema``; with or
            without DistributedDataParallel's ``module.``; a classifier, a
            backbone or a whole detector or segmentor.
        source (str): The file's name, for ``meta`` and messages.

    Returns:
        dict, optional: ``{'meta', 'state_dict'}`` with ``backbone.`` and
        ``head.`` keys; a detector keeps its other keys as they are. None if
        the checkpoint is not an original's.

    Raises:
        CheckpointError: It is an original's, but with an unknown, missing or
            wrongly shaped key.
    """
    found = _unwrap(checkpoint)
    if found is None:
        return None
    keys = found.backbone.keys()
    family = next((f for f in _FAMILIES if f.matches(keys)), None)
    if family is None:
        return None
    try:
        backbone, head, arch = family.convert(found.backbone)
    except CheckpointError as error:
        raise CheckpointError(
            f'{source} looks like {family.NAME}, but {error}'
        ) from error
    if note := getattr(family, 'NOTE', None):
        print_log(f'{source}: {note}', 'current', logging.WARNING)
    state_dict = {f'{_BACKBONE}{k}': v for k, v in backbone.items()}
    state_dict.update({f'head.{k}': v for k, v in head.items()})
    state_dict.update(found.others)
    return dict(
        meta=dict(
            _kept_meta(checkpoint),
            mmssm=dict(
                family=family.NAME,
                arch=arch,
                source=source,
                container=found.container,
            ),
        ),
        state_dict=state_dict,
    )


def _kept_meta(checkpoint: dict) -> dict:
    meta = checkpoint.get('meta')
    if not isinstance(meta, dict):
        return {}
    return {key: meta[key] for key in _META_KEPT if key in meta}


def _unwrap(checkpoint: Any) -> _Found | None:
    if not isinstance(checkpoint, dict):
        return None
    container, weights = _open_container(checkpoint)
    if not weights:
        return None
    if all(key.startswith('module.') for key in weights):
        weights = {key[len('module.') :]: v for key, v in weights.items()}
    backbone = {
        key[len(_BACKBONE) :]: value
        for key, value in weights.items()
        if key.startswith(_BACKBONE)
    }
    if not backbone:
        return _Found(container, weights, {})
    others = {k: v for k, v in weights.items() if not k.startswith(_BACKBONE)}
    return _Found(container, backbone, others)


def _open_container(checkpoint: dict) -> tuple[str, dict[str, Tensor]]:
    for name in _CONTAINERS:
        if _is_state_dict(checkpoint.get(name)):
            return name, checkpoint[name]
    if _is_state_dict(checkpoint):
        return 'none', checkpoint
    return 'none', {}


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(k, str) and isinstance(v, Tensor)
            for k, v in value.items()
        )
    )
