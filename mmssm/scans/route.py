"""The registry of routes, and the op that turns their names into indices."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mmssm.utils import UserError

Route = Callable[[int, int], np.ndarray]
SizedRoute = Callable[[int, int, int], np.ndarray]

_ROUTES: dict[str, Route] = {}
_SIZED_ROUTES: dict[str, SizedRoute] = {}

FLIP = '_flip'
ZERO_TOKEN = -1
# The four routes of VMamba's SS2D, in the order of its K axis.
CROSS = ('h', 'v', 'h_flip', 'v_flip')
# Vim's two: its sequence is a map of one row, read forward and backward.
BIDIRECTIONAL = ('h', 'h_flip')


def register_route(name: str) -> Callable[[Route], Route]:
    """Register a function (H, W) -> token indices as the route ``name``.

    The function is pure. It returns a 1-D integer array that visits every
    token ``row * W + column`` exactly once; -1 stands for a zero token, where
    the route leaves the map. ``<name>_flip``, the same route backward, is
    registered with it.

    Raises:
        UserError: If the name is taken, ends in ``_flip`` or is not one word.
    """
    _check_name(name)

    def register(function: Route) -> Route:
        _ROUTES[name] = function
        return function

    return register


def register_sized_route(name: str) -> Callable[[SizedRoute], SizedRoute]:
    """Register a function (H, W, size) as the routes ``<name><size>``.

    Sizes start at 1. All else is as in :func:`register_route`.

    Raises:
        UserError: If the name is taken, ends in ``_flip`` or a digit, or is
            not one word.
    """
    _check_name(name)
    if name[-1].isdigit():
        raise UserError(
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
        raise UserError(
            f'route name {name!r} is taken, ends in {FLIP!r} or is not '
            'one word; choose another'
        )


@lru_cache(maxsize=512)
def route_indices(name: str, height: int, width: int) -> np.ndarray:
    """Token indices (T,) of one route, int32, read-only.

    Raises:
        UserError: If there is no such route, if the map is empty, or if the
            route's function does not visit every token once.
    """
    function = _find_function(name)
    _check_map(height, width)
    indices = np.asarray(function(height, width))
    check_indices(name, indices, height, width)
    indices = indices.astype(np.int32)
    indices = np.ascontiguousarray(
        indices[::-1] if name.endswith(FLIP) else indices
    )
    indices.flags.writeable = False
    return indices


def _find_function(name: str) -> Route:
    """The registered function of a route, with its size filled in."""
    base = name.removesuffix(FLIP)
    if base in _ROUTES:
        return _ROUTES[base]
    sized = re.fullmatch(r'(.*\D)([1-9]\d*)', base)
    if sized and sized[1] in _SIZED_ROUTES:
        function, size = _SIZED_ROUTES[sized[1]], int(sized[2])
        return lambda height, width: function(height, width, size)
    known = [*sorted(_ROUTES), *(f'{n}<size>' for n in sorted(_SIZED_ROUTES))]
    raise UserError(
        f'unknown route {name!r}; known: {", ".join(known)}, each also with '
        f'{FLIP!r}'
    )


def _check_map(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise UserError(f'a route needs a map, got {height} x {width} tokens')


def check_indices(
    name: str, indices: np.ndarray, height: int, width: int
) -> None:
    """Raise unless the indices visit every token of an H x W map once.

    Raises:
        UserError: If they do not, or if the map is empty.
    """
    _check_map(height, width)
    whole = indices.ndim == 1 and np.issubdtype(indices.dtype, np.integer)
    if whole:
        visited = np.sort(indices[indices >= 0])
        whole = np.array_equal(visited, np.arange(height * width))
        whole = whole and indices.min() >= ZERO_TOKEN
    if not whole:
        raise UserError(
            f'route {name!r} must return a 1-D integer array that visits '
            f'each of the {height} x {width} tokens once (-1 is a zero token)'
        )


def parse_routes(names: str | Sequence[str]) -> tuple[str, ...]:
    """Route names as a tuple, from a sequence or from one spaced string.

    Raises:
        UserError: If there is no name, or if a route is unknown.
    """
    if isinstance(names, str):
        names = names.split()
    if not isinstance(names, Sequence) or not all(
        isinstance(name, str) for name in names
    ):
        raise UserError(
            'routes are given as names, in a list or in one string with '
            f'spaces, got {names!r}'
        )
    if not names:
        raise UserError('no routes given; name at least one')
    for name in names:
        _find_function(name)
    return tuple(names)


def _with_class_token(route: np.ndarray, length: int) -> np.ndarray:
    """The route over a map's tokens and a class token in their middle."""
    middle = length // 2
    shifted = route + (route >= middle)
    return np.insert(shifted, middle, middle)


@lru_cache(maxsize=512)
def _stacked(
    names: str, height: int, width: int, class_token: bool
) -> np.ndarray:
    """(K, T) of space-separated names; shorter routes end in -1."""
    rows = [route_indices(name, height, width) for name in names.split()]
    if class_token:
        rows = [_with_class_token(row, height * width) for row in rows]
    seq_len = max(len(row) for row in rows)
    rows = [
        np.pad(row, (0, seq_len - len(row)), constant_values=ZERO_TOKEN)
        for row in rows
    ]
    return np.stack(rows).astype(np.int32)


# Only 64: these take memory on the device, and multi-scale training asks for
# many sizes.
@lru_cache(maxsize=64)
def _on_device(
    names: str,
    height: int,
    width: int,
    device: torch.device,
    class_token: bool,
) -> Tensor:
    indices = _stacked(names, height, width, class_token)
    # A tensor made in inference mode could not be used outside of it.
    with torch.inference_mode(False):
        return torch.from_numpy(indices).to(device)


# A custom op, so that tracing and export see one node and do not run the
# route functions on fake tensors. An op must not return the tensor that it
# caches, so it returns a copy.
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
def _(
    names: str,
    height: int,
    width: int,
    device: torch.device,
    class_token: bool,
) -> Tensor:
    shape = _stacked(names, int(height), int(width), class_token).shape
    return torch.empty(shape, dtype=torch.int32, device=device)


def is_jit_tracing() -> bool:
    """Whether ``torch.jit.trace`` runs, by which FLOPs are counted.

    It cannot record a device argument. Index tensors are then constants of
    the traced size.
    """
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def is_recorded() -> bool:
    """Whether ops are recorded or run on fake tensors, not just computed."""
    compiling = torch.compiler.is_compiling()
    return bool(compiling or _get_current_dispatch_mode())


def routes(
    names: str | Sequence[str],
    height: int,
    width: int,
    device: str | torch.device = 'cpu',
    class_token: bool = False,
) -> Tensor:
    """Token indices of several routes over an H x W map.

    Args:
        names (str | Sequence[str]): Route names, a sequence or separated by
            spaces.
        height (int): Rows of the map.
        width (int): Columns of the map.
        device (str | torch.device): Device of the result. Defaults to
            'cpu'.
        class_token (bool): Whether there is a class token in the middle of the
            map's tokens, at index ``H * W // 2``. Every route then visits it
            after ``H * W // 2`` steps. Defaults to False.

    Returns:
        Tensor: (K, T) int32, for :func:`mmssm.ops.routed_selective_scan`.
        Routes shorter than the longest end in -1.

    Raises:
        UserError: If a route is unknown or the map is empty.
    """
    joined = ' '.join(parse_routes(names))
    if is_jit_tracing():
        indices = _stacked(joined, int(height), int(width), class_token)
        return torch.tensor(indices, device=device)
    return _routes_op(joined, height, width, torch.device(device), class_token)


def cached_routes(
    names: tuple[str, ...],
    height: int,
    width: int,
    device: torch.device,
    class_token: bool = False,
) -> Tensor:
    """:func:`routes` from a cache: the result must not be changed.

    It saves the call of an op, which takes longer than the scan of a small
    map. Where ops are recorded, the op is called nevertheless.
    """
    if is_jit_tracing() or is_recorded():
        return routes(names, height, width, device, class_token)
    return _on_device(' '.join(names), height, width, device, class_token)
