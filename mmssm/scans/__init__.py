"""Routes: in which order a scan visits the tokens of an H x W map."""

from . import cross  # noqa: F401  (registers its routes)
from .route import (
    CROSS,
    cached_routes,
    parse_routes,
    register_route,
    route_indices,
    routes,
)

__all__ = [
    'CROSS',
    'cached_routes',
    'parse_routes',
    'register_route',
    'route_indices',
    'routes',
]
