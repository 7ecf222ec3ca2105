"""Helpers for all other packages; imports none of them."""

from .errors import CheckpointError, ConfigError, UserError
from .files import atomic_write

__all__ = [
    'CheckpointError',
    'ConfigError',
    'UserError',
    'atomic_write',
]
