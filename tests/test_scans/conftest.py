"""A table of routes that a test fills."""

import pytest

from mmssm.scans import route


@pytest.fixture
def own_routes(monkeypatch):
    """No routes but rows and columns, whatever else the package has."""
    rows_and_columns = {name: route._ROUTES[name] for name in ('h', 'v')}
    monkeypatch.setattr(route, '_ROUTES', rows_and_columns)
    monkeypatch.setattr(route, '_SIZED_ROUTES', {})
    kept = (route.route_indices, route._stacked, route._on_device)
    for cache in kept:
        cache.cache_clear()
    yield
    for cache in kept:
        cache.cache_clear()
