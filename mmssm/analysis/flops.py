"""Parameters and FLOPs of a model, with the native ops counted.

Two conventions are kept apart, because published figures mix them.

``flops`` is the convention of the VMamba family's papers:

- a matrix product or convolution: 1 per multiply-accumulate;
- an affine norm: 5 per element;
- a scan: the operations of its parallel form, ``9 N + 1`` per route, channel
  and token (https://github.com/state-spaces/mamba/issues/110), or ``7 N`` if
  it returns its states without a read-out;
- Spatial-Mamba's state fusion: its three 3 x 3 filters, 27 per channel and
  token; its read-out is not counted;
- a tree scan: two scans for states (on a path, one in each direction), 14 per
  channel and token.

``macs`` are multiply-accumulates only, per channel and token: a scan has
``4 N + 2`` per route in its sequential form, or ``3 N + 1`` for states; a
state fusion 25, and 2 more with a read-out; a tree scan 6.

Neither convention counts element-wise operations.
"""

import math
from collections import Counter
from collections.abc import Callable

import torch
from mmengine.analysis import FlopAnalyzer
from torch import nn

from mmssm.ops import native
from mmssm.ops.state_fusion import DILATIONS
from mmssm.utils import UserError

CONVENTIONS = {
    'flops': 'paper: multiply-accumulates of matrix products and convolutions,'
    ' 5 per normalized element, 9 N + 1 (7 N for states alone) per scanned'
    ' route, channel and token',
    'macs': 'multiply-accumulates only; 4 N + 2 (3 N + 1 for states alone) per'
    ' scanned route, channel and token',
}

# Operators that are counted in multiply-accumulates.
_MAC_OPERATORS = {
    'addmm',
    'bmm',
    'conv',
    'einsum',
    'linear',
    'matmul',
    'mm',
    'dt_projection',
}
_NATIVE_MACS = 'native ops (macs)'


def count_model(
    model: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[int, int, dict[str, int]]:
    """Count one forward pass of any model.

    Args:
        model (nn.Module): The model, in training or evaluation mode.
        inputs (tuple[Tensor]): Its arguments.

    Returns:
        tuple: ``flops``, ``macs`` and the parts of ``flops`` by operator, see
        :class:`Complexity`.

    Raises:
        UserError: The native ops were not built; without them the reference
            implementations would be counted step by step.
    """
    if not native.is_available():
        raise UserError(
            f'FLOPs are counted with the native ops: {native.HOW_TO_BUILD}'
        )
    analyzer = FlopAnalyzer(model, inputs).set_op_handle(**OP_HANDLES)
    analyzer.unsupported_ops_warnings(False)
    analyzer.uncalled_modules_warnings(False)
    analyzer.tracer_warnings('none')
    with torch.no_grad():
        counts = Counter(analyzer.by_operator())
    macs = counts.pop(_NATIVE_MACS, 0)
    macs += sum(n for op, n in counts.items() if op in _MAC_OPERATORS)
    by_operator = {op: int(n) for op, n in counts.most_common() if n}
    return sum(by_operator.values()), int(macs), by_operator


def scan_counts(
    batch: int,
    length: int,
    channels: int,
    states: int,
    with_output: bool = True,
    with_skip: bool = True,
) -> Counter:
    """Cost of a selective scan in both conventions.

    Args:
        batch (int): Number of sequences.
        length (int): Tokens in a sequence.
        channels (int): Channels of all routes together.
        states (int): States per channel, N.
        with_output (bool): Whether the states are read out (C).
        with_skip (bool): Whether the input is added to the output (D).

    Returns:
        Counter: ``selective_scan`` in the papers' convention, and its
        multiply-accumulates under a separate key.
    """
    cells = batch * length * channels
    # Parallel form: 7 N for the discretization and the scan, 2 N to read out.
    parallel = (9 if with_output else 7) * states + with_skip
    # delta * A, delta * u, (delta * u) * B, a * x + b, C * x, D * u.
    sequential = (4 if with_output else 3) * states + 1 + with_skip
    return Counter(
        {'selective_scan': cells * parallel, _NATIVE_MACS: cells * sequential}
    )


def _routed_selective_scan(inputs: list, outputs: list) -> Counter:
    """Handle of ``mmssm::routed_selective_scan``.

    Its first inputs are x, dt, A, B, C, D, dt_weight, dt_bias, routes. If the
    op projects dt, that is a matrix product at every step of a route.
    """
    batch, _, channels = _shape(inputs[0])
    routes, _, states = _shape(inputs[2])
    steps = _shape(inputs[8])[1]
    counts = scan_counts(
        batch,
        steps,
        routes * channels,
        states,
        with_output=_given(inputs[4]),
        with_skip=_given(inputs[5]),
    )
    if _given(inputs[6]):
        rank = _shape(inputs[6])[2]
        counts['dt_projection'] = batch * steps * routes * channels * rank
    return counts


def _state_fusion(inputs: list, outputs: list) -> Counter:
    """Handle of ``mmssm::state_fusion``: x, taps, C, D, u."""
    cells = math.prod(_shape(inputs[0]))
    per_cell = len(DILATIONS) * 9
    taps, _ = _shape(inputs[1])
    readout = 2 if _given(inputs[2]) else 0
    return Counter(
        {
            'state_fusion': cells * per_cell,
            _NATIVE_MACS: cells * (taps + readout),
        }
    )


def _tree_scan(inputs: list, outputs: list) -> Counter:
    """Handle of ``mmssm::tree_scan``: x, dt, A, B, dt_weight, ..."""
    batch, tokens, channels = _shape(inputs[0])
    cells = batch * tokens * channels
    there = scan_counts(
        batch, tokens, channels, 1, with_output=False, with_skip=False
    )
    counts = Counter(
        {
            'tree_scan': 2 * there['selective_scan'],
            # delta * A, delta * u, (delta * u) * B; one in the first pass, two
            # in the second.
            _NATIVE_MACS: cells * 6,
        }
    )
    if _given(inputs[4]):
        counts['dt_projection'] = cells * _shape(inputs[4])[1]
    return counts


OP_HANDLES: dict[str, Callable[[list, list], Counter]] = {
    'mmssm::routed_selective_scan': _routed_selective_scan,
    'mmssm::state_fusion': _state_fusion,
    'mmssm::tree_scan': _tree_scan,
}


def _given(value: torch._C.Value) -> bool:
    """Whether an optional tensor was passed to a traced op."""
    return value.isCompleteTensor()


def _shape(value: torch._C.Value) -> list[int]:
    """Shape of a tensor in a traced graph."""
    return value.type().sizes()
