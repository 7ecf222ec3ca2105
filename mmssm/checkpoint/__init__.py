"""Checkpoints: safe loading, the originals' key maps, atomic writing.

Importing this package makes every checkpoint that mmengine opens go through
:func:`load_file` and be converted if it is an original author's.
"""

# Their old place; they are documented in mmssm.utils.
from mmssm.utils import CheckpointError, atomic_write  # noqa: F401

from .loaders import register_loaders
from .safe_load import (
    allow_unsafe_loading,
    load_file,
    local_file,
    locate_checkpoint,
)
from .upstream import convert_upstream

__all__ = [
    'allow_unsafe_loading',
    'convert_upstream',
    'load_file',
    'local_file',
    'locate_checkpoint',
]

register_loaders()
