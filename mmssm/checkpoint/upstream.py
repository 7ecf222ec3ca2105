"""Find out whose a checkpoint is, and convert an original author's.

A family (VMamba, ...) is a module with these names:

``NAME`` (str)
    The family's name, for ``meta['mmssm']['family']`` and messages.
``matches(keys) -> bool``
    Whether the keys are those of the family's original backbone or
    classifier.
``convert(state_dict) -> (backbone, head, arch)``
    Takes the weights of an original classifier or backbone and returns three
    things: the backbone's weights and the head's, under mmssm's names without
    ``backbone.`` and ``head.``, and the ``arch`` for mmssm's backbone, a name
    or, if no name fits, a dict. Raises :class:`CheckpointError` if a key is
    unknown, missing or given twice, or if a shape does not belong to the
    arch.
``HEAD`` (str, optional)
    The head's name in mmssm's model, if it is not ``head``.
``NOTE`` (str, optional)
    A warning for users who load such a file.

To add a family, write such a module with :mod:`.key_map` and add it to
``_FAMILIES``.
"""

import logging
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import Tensor

from mmssm.utils import CheckpointError

from . import (
    change_mamba,
    groot_v,
    local_vim,
    local_vmamba,
    spatial_mamba,
    vim,
    vmamba,
)

# The first family that matches is taken. VMamba comes last, since it also
# matches LocalVMamba's keys, Spatial-Mamba's and ChangeMamba's.
_FAMILIES = (
    change_mamba,
    groot_v,
    local_vim,
    local_vmamba,
    spatial_mamba,
    vim,
    vmamba,
)

# Where the authors keep weights; those that they evaluate come first.
_CONTAINERS = ('state_dict', 'model', 'model_ema')

_BACKBONE = 'backbone.'

# Metadata of a detector's or segmentor's file that its user needs.
_META_KEPT = ('dataset_meta', 'CLASSES', 'PALETTE', 'epoch', 'iter')


class _Found(NamedTuple):
    """The weights of a checkpoint, and where it keeps them."""

    container: str
    backbone: dict[str, Tensor]
    others: dict[str, Tensor]  # necks and heads of a detector or segmentor


def convert_upstream(checkpoint: Any, source: str) -> dict[str, Any] | None:
    """Convert an original author's checkpoint to mmssm's names.

    Args:
        checkpoint (Any): What the file holds: a state dict, or a dict with
            one under ``state_dict``, ``model`` or ``model_ema``. Keys may
            start with DistributedDataParallel's ``module.``. The model may be
            a classifier, a backbone, a detector, a segmentor or a change
            detector.
        source (str): The file's name, for ``meta`` and messages.

    Returns:
        dict, optional: ``{'meta', 'state_dict'}`` with ``backbone.`` and
        ``head.`` keys (a change detector's head is ``decode_head.``); a
        detector keeps its other keys as they are. None if the checkpoint is
        not that of an original.

    Raises:
        CheckpointError: It is that of an original, but a key is unknown,
            missing or given twice, or has a wrong shape.
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
    prefix = getattr(family, 'HEAD', 'head')
    state_dict.update({f'{prefix}.{k}': v for k, v in head.items()})
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


def _kept_meta(checkpoint: dict[str, Any]) -> dict[str, Any]:
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


def _open_container(
    checkpoint: dict[str, Any],
) -> tuple[str, dict[str, Tensor]]:
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
