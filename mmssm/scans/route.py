"""The table of routes, and the one op that turns names into indices."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

Route = Callable[[int, int], np.ndarray]
SizedRoute = Callable[[int, int, int], np.ndarray]

_ROUTES: dict[str, Route] = {}
_SIZED_ROUTES: dict[str, SizedRoute] = {}

FLIP = '_flip'
ZERO_TOKEN = -1
# The four routes of VMamba's SS2D, in the order of its K axis.
CROSS = ('h', 'v', 'h_flip', 'v_flip')
# The two of Vim's mixer: a sequence, taken as a map of one row, and back.
BIDIRECTIONAL = ('h', 'h_flip')


def register_route(name: str) -> Callable[[Route], Route]:
    """Register a function (H, W) -> token indices as the route ``name``.

    The function is pure and returns a 1-D integer array that visits every
    token ``row * W + column`` exactly once; -1 stands for a zero token, where
    a route leaves the map. ``<name>_flip``, the same route backwards, comes
    with it.

    Raises:
        ValueError: If the name is taken, ends in ``_flip`` or is not one word.
    """
    _check_name(name)

    def register(function: Route) -> Route:
        _ROUTES[name] = function
        return function

    return register


def register_sized_route(name: str) -> Callable[[SizedRoute], SizedRoute]:
    """Register a function (H, W, size) as the routes ``<name><size>``.

    As :func:`register_route`, for every size from 1.

    Raises:
        ValueError: If the name is taken, ends in ``_flip`` or a digit, or is
            not one word.
    """
    _check_name(name)
    if name[-1].isdigit():
        raise ValueError(
            f'route name {name!r} ends in a digit, which its sizes would '
            'follow; choose another'
        )

    def register(function: SizedRoute) -> SizedRoute:
        _SIZED_ROUTES[name] = function
        return function

    return register


def _check_name(name: str) -> None:
    taken = name in _ROUTES or name in _SIZED_ROUTES
    if taken or name.endswith(FLIP) or len(name.split()) != 1:
        raise ValueError(
            f'route name {name!r} is taken, ends in {FLIP!r} or is not '
            'one word; choose another'
        )


@lru_cache(maxsize=512)
def route_indices(name: str, height: int, width: int) -> np.ndarray:
    """Token indices (T,) of one route, int32, read-only.

    Raises:
        ValueError: If there is no such route, the map has no token, or the
            route's function does not visit every token once.
    """
    function = _find(name)
    if height < 1 or width < 1:
        raise ValueError(f'a route needs a map, got {height} x {width} tokens')
    indices = np.asarray(function(height, width))
    _check_indices(name, indices, height, width)
    indices = indices.astype(np.int32)
    indices = np.ascontiguousarray(
        indices[::-1] if name.endswith(FLIP) else indices
    )
    indices.flags.writeable = False
    return indices


def _find(name: str) -> Route:
    base = name.removesuffix(FLIP)
    if base in _ROUTES:
        return _ROUTES[base]
    sized = re.fullmatch(r'(.*\D)([1-9]\d*)', base)
    if sized and sized[1] in _SIZED_ROUTES:
        return partial(_SIZED_ROUTES[sized[1]], size=int(sized[2]))
    known = [*sorted(_ROUTES), *(f'{n}<size>' for n in sorted(_SIZED_ROUTES))]
    raise ValueError(
        f'unknown route {name!r}; known: {", ".join(known)}, each also with '
        f'{FLIP!r}'
    )


def _check_indices(
    name: str, indices: np.ndarray, height: int, width: int
) -> None:
    whole = indices.ndim == 1 and np.issubdtype(indices.dtype, np.integer)
    if whole:
        visited = np.sort(indices[indices >= 0])
        whole = np.array_equal(visited, np.arange(height * width))
        whole = whole and indices.min() >= ZERO_TOKEN
    if not whole:
        raise ValueError(
            f'route {name!r} must return a 1-D integer array that visits '
            f'each of the {height} x {width} tokens once (-1 is a zero token)'
        )


def parse_routes(names: str | Sequence[str]) -> tuple[str, ...]:
    """Route names as a tuple, from a sequence or one spaced string.

    Raises:
        ValueError: If there is no name, or a route is unknown.
    """
    if isinstance(names, str):
        names = names.split()
    if not isinstance(names, Sequence) or not all(
        isinstance(name, str) for name in names
    ):
        raise ValueError(
            'routes are given as names, in a list or in one string with '
            f'spaces, got {names!r}'
        )
    names = tuple(names)
    if not names:
        raise ValueError('no routes given; name at least one')
    for name in names:
        _find(name)
    return names


def _with_class_token(indices: np.ndarray, tokens: int) -> np.ndarray:
    """Put the token in the middle of the map's into that of the route."""
    middle = tokens // 2
    return np.insert(indices + (indices >= middle), middle, middle)


@lru_cache(maxsize=512)
def _stacked(
    names: str, height: int, width: int, class_token: bool
) -> np.ndarray:
    """(K, T) of space-separated names, the shorter ones ended with -1."""
    parts = [route_indices(n, height, width) for n in names.split()]
    if class_token:
        parts = [_with_class_token(p, height * width) for p in parts]
    longest = max(len(p) for p in parts)
    rows = [
        np.pad(p, (0, longest - len(p)), constant_values=ZERO_TOKEN)
        for p in parts
    ]
    return np.stack(rows).astype(np.int32)


# Few: multi-scale training meets many sizes, and these lie on the device.
@lru_cache(maxsize=64)
def _on_device(
    names: str,
    height: int,
    width: int,
    device: torch.device,
    class_token: bool,
) -> Tensor:
    indices = _stacked(names, height, width, class_token)
    # Inference mode's tensors could not be used outside of it.
    with torch.inference_mode(False):
        return torch.from_numpy(indices).to(device)


# An op, so that tracing and export see one node instead of running the route
# functions on fake tensors; an op must not return what it keeps, so it copies.
@torch.library.custom_op('mmssm::routes', mutates_args=())
def _routes_op(
    names: str,
    height: int,
    width: int,
    device: torch.device,
    class_token: bool,
) -> Tensor:
    return _on_device(names, height, width, device, class_token).clone()


@_routes_op.register_fake
def _(names, height, width, device, class_token):
    shape = _stacked(names, int(height), int(width), class_token).shape
    return torch.empty(shape, dtype=torch.int32, device=device)


def routes(
    names: str | Sequence[str],
    height: int,
    width: int,
    device: str | torch.device = 'cpu',
    class_token: bool = False,
) -> Tensor:
    """Indices of several routes over an H x W map.

    Args:
        names (str | Sequence[str]): Route names, a sequence or separated by
            spaces.
        height (int): Rows of the map.
        width (int): Columns of the map.
        device (str | torch.device): Where the result lies. Defaults to
            'cpu'.
        class_token (bool): Whether a class token stands in the middle of the
            map's tokens, at index ``H * W // 2``. Every route then meets it
            after as many steps. Defaults to False.

    Returns:
        Tensor: (K, T) int32, for :func:`mmssm.ops.routed_selective_scan`.
        Routes shorter than the longest end in -1.

    Raises:
        ValueError: If a route is unknown or the map is empty.
    """
    names = ' '.join(parse_routes(names))
    if torch.jit.is_tracing():
        # The JIT tracer, which counts FLOPs, cannot record a device argument:
        # there the indices are constants of the traced size.
        indices = _stacked(names, int(height), int(width), class_token)
        return torch.tensor(indices, device=device)
    return _routes_op(names, height, width, torch.device(device), class_token)


def cached_routes(
    names: tuple[str, ...],
    height: int,
    width: int,
    device: torch.device,
    class_token: bool = False,
) -> Tensor:
    """:func:`routes` without a copy where that is possible: not to be changed.

    An op's call takes longer than a small map's scan.
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if recorded or _get_current_dispatch_mode():
        return routes(names, height, width, device, class_token)
    return _on_device(' '.join(names), height, width, device, class_token)
