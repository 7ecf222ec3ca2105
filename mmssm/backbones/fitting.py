"""Which tensors of a file a model takes, and how that is told."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

Shapes = Mapping[str, torch.Size]

# A file that fills less of a model is a wrong one.
SMALLEST_SHARE = 0.1


class Fit(NamedTuple):
    """What a file and a model have in common, by the names of tensors."""

    own: Shapes
    given: Shapes
    taken: list[str]
    missing: list[str]  # not in the file
    unknown: list[str]  # not in the model
    reshaped: list[str]

    def share(self) -> float:
        """How much of the model the file fills, 0 to 1.

        Scalars do not count: the counters of batch norms fit any model.
        """
        fills = sum(len(self.own[name]) > 0 for name in self.taken)
        return fills / max(1, sum(len(s) > 0 for s in self.own.values()))

    def shapes(self) -> list[str]:
        """The misfits with both shapes."""
        return [
            f'{name} {tuple(self.given[name])} instead of '
            f'{tuple(self.own[name])}'
            for name in self.reshaped
        ]

    def __str__(self) -> str:
        """All that is left out; a whole module is one entry."""
        lists = (
            ('not in the file', _by_module(self.missing, self.own)),
            ('not in the model', _by_module(self.unknown, self.given)),
            ('other shape', self.shapes()),
        )
        return '; '.join(
            [f'loaded {len(self.taken)} of {len(self.own)} tensors']
            + [f'{title}: {", ".join(n) or "none"}' for title, n in lists]
        )


def compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Fit:
    """Compare a model's tensors with those of a file."""
    wanted = {name: tensor.shape for name, tensor in own.items()}
    held = {name: tensor.shape for name, tensor in given.items()}
    common = [name for name in wanted if name in held]
    return Fit(
        wanted,
        held,
        taken=[name for name in common if wanted[name] == held[name]],
        missing=[name for name in wanted if name not in held],
        unknown=[name for name in held if name not in wanted],
        reshaped=[name for name in common if wanted[name] != held[name]],
    )


def fit_first_convolution(
    model: nn.Module, weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Fit a file's first convolution to images of other channels.

    Every channel gets the mean filter, scaled by the file's channels over the
    model's. A gray image that is copied into all channels then gives the same
    output as before.

    Args:
        model (nn.Module): Its first convolution reads the image.
        weights (dict[str, Tensor]): The file's tensors by the model's names.

    Returns:
        dict[str, Tensor]: The same, with that one weight replaced if it has
        other input channels than the model's and is alike otherwise.
    """
    convolutions = (
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    )
    name, first = next(convolutions, (None, None))
    given = weights.get(f'{name}.weight')
    if first is None or given is None or given.dim() != 4:
        return weights
    channels, held = first.weight.shape[1], given.shape[1]
    if (
        held in (0, channels)
        or given[:, :1].shape != first.weight[:, :1].shape
    ):
        return weights
    print_log(
        f'{type(model).__name__}: {name} has {held} input channels in the '
        f'file and {channels} here: each gets the mean filter times '
        f'{held}/{channels}',
        logger='current',
    )
    total = given.sum(1, keepdim=True, dtype=torch.float32)
    filters = (total / channels).to(given.dtype).repeat(1, channels, 1, 1)
    return {**weights, f'{name}.weight': filters}


def _by_module(names: Collection[str], among: Collection[str]) -> list[str]:
    """Names, where ``stages.*`` with a number stands for a whole module."""
    chosen = set(names)
    others = {p for name in among if name not in chosen for p in _above(name)}
    groups = Counter(
        next((f'{p}.*' for p in _above(name) if p not in others), name)
        for name in names
    )
    return [
        f'{group} ({number})' if group.endswith('.*') else group
        for group, number in groups.items()
    ]


def _above(name: str) -> list[str]:
    """``a``, ``a.b`` for ``a.b.c``."""
    parts = name.split('.')
    return ['.'.join(parts[:i]) for i in range(1, len(parts))]
