"""mmssm's own names of tensors, and those of its earlier versions.

In the originals and in mmssm before the release of 0.1.0, the projections of
a mixer's values and of its gate are one tensor. In those versions of mmssm,
downsampling also belongs to the stage before it.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_OWN = re.compile(r'(.*\.)?mixer\.x_proj_weight')
_IN_PROJ = re.compile(r'(?P<mixer>(.*\.)?mixer\.)in_proj\.weight')
_DOWNSAMPLE = re.compile(
    r'(?P<stages>(.*\.)?stages\.)(?P<stage>\d+)(?P<rest>\.downsample\..*)'
)


def split_gates(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Part each projection of values and gate into two tensors.

    A tensor has both if it has twice as many rows as the mixer's ``out_proj``
    has columns.

    Args:
        weights (Mapping[str, Any]): Tensors by mmssm's names.

    Returns:
        dict[str, Any]: The same, with ``in_proj`` and ``gate_proj`` for each
        tensor that has both.
    """
    result = {}
    for name, value in weights.items():
        result[name] = value
        found = _IN_PROJ.fullmatch(name)
        out = found and weights.get(f'{found["mixer"]}out_proj.weight')
        if not isinstance(out, Tensor) or out.dim() < 2:
            continue
        if len(value) == 2 * out.shape[1]:
            # Copies: safetensors refuses tensors that share memory.
            values, gate = (half.clone() for half in value.chunk(2))
            result[name] = values
            result[f'{found["mixer"]}gate_proj.weight'] = gate
    return result


def update_names(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights by the names that this version of mmssm has for them.

    Args:
        weights (Mapping[str, Any]): A state dict with any prefixes. That of
            another project is returned as it is.
    """
    if not any(isinstance(k, str) and _OWN.fullmatch(k) for k in weights):
        return dict(weights)
    moved = [found for found in map(_DOWNSAMPLE.fullmatch, weights) if found]
    if any(found['stage'] == '0' for found in moved):
        new = {
            found[0]: f'{found["stages"]}{int(found["stage"]) + 1}'
            f'{found["rest"]}'
            for found in moved
        }
        weights = {new.get(k, k): value for k, value in weights.items()}
    return split_gates(weights)
