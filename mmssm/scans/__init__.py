"""Routes: the order in which a scan visits the tokens of an H x W map."""

from . import cross, hilbert, local  # noqa: F401  (they register their routes)
from .distortion import structural_distortion, token_distortion
from .hilbert import HILBERT, HILBERT_SHIFT
from .route import (
    BIDIRECTIONAL,
    CROSS,
    FLIP,
    cached_routes,
    parse_routes,
    register_route,
    register_sized_route,
    route_indices,
    routes,
)

__all__ = [
    'BIDIRECTIONAL',
    'CROSS',
    'FLIP',
    'HILBERT',
    'HILBERT_SHIFT',
    'cached_routes',
    'parse_routes',
    'register_route',
    'register_sized_route',
    'route_indices',
    'routes',
    'structural_distortion',
    'token_distortion',
]
