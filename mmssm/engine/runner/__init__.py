"""Start and resume runs of mmengine's Runner."""

from .launch import prepare_launch
from .portable_config import make_portable
from .resume import find_latest, prepare_resume
from .scoped_runner import ScopedRunner

__all__ = [
    'ScopedRunner',
    'find_latest',
    'make_portable',
    'prepare_launch',
    'prepare_resume',
]
