"""Reuse of the memory of freed tensors on a CPU."""

import torch

from . import native  # noqa: F401  (loads the extension)

_MOST_BYTES = 2 * 2**30


def keep_freed_memory() -> bool:
    """Let large tensors take the memory of freed ones, in this process.

    The C library returns large freed blocks to the system, which fills new
    ones with zeros, page by page. This takes a tenth of a forward pass at
    224 pixels and more at 2048. Up to 2 GiB of freed memory are kept. Call it
    in programs that run a model on a CPU, not in a library.

    Returns:
        bool: Whether there is a native extension, which it needs.
    """
    # One of an earlier version does not have it.
    if not hasattr(torch.ops.mmssm, '_keep_freed_memory'):
        return False
    torch.ops.mmssm._keep_freed_memory(_MOST_BYTES)
    return True
