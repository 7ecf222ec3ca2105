"""Weights under an original author's names, brought under mmssm's.

A rule is a pair of templates, the original's and mmssm's. ``#`` stands for a
number and ``*`` for the rest of a key; both templates hold the same ones in
the same order. Where several rules fit, the first counts.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmssm.utils import CheckpointError

from ..backbones.base import Arch, SSMBackbone
from ..backbones.hierarchical import HierarchicalBackbone

Rules = Sequence[tuple[str, str]]
Shapes = dict[str, tuple[int, ...]]

_HOLES = {'#': r'(\d+)', '*': r'(.+)'}
_HEAD = 'head.'


class RenamedWeights(dict[str, Tensor]):
    """An original's weights by mmssm's names, which knows the original ones.

    A classifier's last layer is ``head.fc``; the backbone's tensors have no
    prefix.

    Args:
        state_dict (Mapping[str, Tensor]): Weights by the original names.
        rules (Rules): From the original names to mmssm's.

    Raises:
        CheckpointError: No rule fits a key, or two keys mean the same.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], rules: Rules) -> None:
        super().__init__()
        self._originals: dict[str, str] = {}
        compiled = [(_pattern(old), (old, new)) for old, new in rules]
        used = set()
        for key, value in state_dict.items():
            matches = ((p.fullmatch(key), rule) for p, rule in compiled)
            found, rule = next((m for m in matches if m[0]), (None, None))
            if found is None:
                raise _unknown(key)
            used.add(rule)
            name = _fill(rule[1], found.groups())
            if name in self:
                raise CheckpointError(
                    f'its keys {self._originals[name]!r} and {key!r} mean the '
                    'same'
                )
            self[name] = value
            self._originals[name] = key
        # A missing key is named in the manner of those that are there.
        first = [rule for rule in rules if rule in used]
        self._inverse = [(_pattern(new), old) for old, new in (*first, *rules)]

    def original(self, name: str) -> str:
        """What the original calls, or would call, mmssm's ``name``."""
        if name in self._originals:
            return self._originals[name]
        for pattern, old in self._inverse:
            found = pattern.fullmatch(name)
            if found:
                return _fill(old, found.groups())
        return name

    def size(self, name: str, axis: int) -> int:
        """A tensor's size along an axis, at least 1.

        Raises:
            CheckpointError: There is no such tensor, axis or element.
        """
        if name not in self:
            raise self._missing(name)
        shape = tuple(self[name].shape)
        if len(shape) <= axis or shape[axis] == 0:
            raise CheckpointError(
                f'key {self.original(name)!r} has shape {shape}'
            )
        return shape[axis]

    def depths(self) -> list[int]:
        """Blocks of the four stages.

        Raises:
            CheckpointError: There are other stages than these four.
        """
        last: dict[int, int] = {}
        for name in self:
            block = re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', name)
            if block:
                stage, number = int(block[1]), int(block[2])
                last[stage] = max(last.get(stage, 0), number)
        if sorted(last) != [0, 1, 2, 3]:
            raise CheckpointError(
                f'it has blocks in the stages {sorted(last)} instead of '
                '[0, 1, 2, 3]'
            )
        return [last[stage] + 1 for stage in range(4)]

    def check(self, expected: Shapes) -> None:
        """Raise unless there are exactly these tensors.

        Raises:
            CheckpointError: A key is missing, of another shape or unknown.
        """
        for name, shape in expected.items():
            if name not in self:
                raise self._missing(name)
            if tuple(self[name].shape) != shape:
                raise CheckpointError(
                    f'key {self.original(name)!r} has shape '
                    f'{tuple(self[name].shape)} instead of {shape}'
                )
        for name in self:
            if name not in expected:
                raise _unknown(self.original(name))

    def has_head(self) -> bool:
        """Whether there is a part of a classifier's last layer."""
        return any(name.startswith(_HEAD) for name in self)

    def head_shapes(self, width: int) -> Shapes:
        """Shapes of a classifier's last layer on ``width`` channels, if any.

        Raises:
            CheckpointError: Its tensors have no elements.
        """
        if not self.has_head():
            return {}
        known = 'weight' if 'head.fc.weight' in self else 'bias'
        classes = self.size(f'head.fc.{known}', 0)
        return {'head.fc.weight': (classes, width), 'head.fc.bias': (classes,)}

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The backbone's weights, and the head's without their prefix."""
        backbone = {k: v for k, v in self.items() if not k.startswith(_HEAD)}
        head = {
            k[len(_HEAD) :]: v for k, v in self.items() if k.startswith(_HEAD)
        }
        return backbone, head

    def _missing(self, name: str) -> CheckpointError:
        return CheckpointError(f'key {self.original(name)!r} is missing')


class Packing(NamedTuple):
    """Tensors of mmssm's that hold ``count`` of the original's each.

    A part is called ``<name>.<number>``; the parts are stacked, or joined
    where mmssm's tensor has no axis more.

    Args:
        count (int): Parts of a whole.
        ends (tuple[str, ...]): What the names of the wholes end in.
        filters (tuple[str, ...]): Ends of wholes whose parts are depthwise
            filters, (C, 1, ...) in the original.
    """

    count: int
    ends: tuple[str, ...]
    filters: tuple[str, ...] = ()

    def apart(self, shapes: Shapes) -> Shapes:
        """The wholes' shapes replaced by those of their parts."""
        apart = {}
        for name, shape in shapes.items():
            if not name.endswith((*self.ends, *self.filters)):
                apart[name] = shape
                continue
            part = shape[1:]
            if shape[0] != self.count:
                part = (shape[0] // self.count, *part)
            if name.endswith(self.filters):
                part = (part[0], 1, *part[1:])
            for i in range(self.count):
                apart[f'{name}.{i}'] = part
        return apart

    def together(
        self, weights: Mapping[str, Tensor], shapes: Shapes
    ) -> dict[str, Tensor]:
        """The parts replaced by the wholes, which have these shapes."""
        together = {}
        for name, value in weights.items():
            whole, _, number = name.rpartition('.')
            if not whole.endswith((*self.ends, *self.filters)):
                together[name] = value
            elif number == '0':
                parts = [weights[f'{whole}.{i}'] for i in range(self.count)]
                together[whole] = torch.stack(parts).view(shapes[whole])
        return together


def check_directions(
    backbone: type[SSMBackbone], arch: Arch, blocks: int, routes: int
) -> None:
    """Raise unless the arch's scan directions can be those of a file.

    Args:
        backbone (type): A class whose archs have ``directions``.
        arch (str | dict): Its arch.
        blocks (int): Blocks of the file.
        routes (int): Routes of the file's first block.

    Raises:
        CheckpointError: They are of other blocks or routes.
    """
    directions = backbone.parse_arch(arch)[1]['directions']
    if directions == 'search':
        return
    known = len(directions), len(directions[0].split())
    if known != (blocks, routes):
        raise CheckpointError(
            f'it has {blocks} blocks of {routes} routes and does not tell '
            'which scan directions they are; known are those of '
            f'{known[0]} blocks of {known[1]}'
        )


def arch_name(backbone: type[SSMBackbone], arch: dict) -> str | None:
    """The backbone's first arch with these fields, if there is one."""
    for name, settings in backbone.arch_settings.items():
        if all(_plain(settings[k]) == _plain(v) for k, v in arch.items()):
            return name
    return None


def expected_shapes(
    backbone: type[HierarchicalBackbone], arch: Arch, weights: RenamedWeights
) -> Shapes:
    """What such a file must hold: names and shapes of the model's tensors.

    Output norms and a head are expected where the file has a part of them,
    and a head's input to be normed.

    Args:
        backbone (type): mmssm's class.
        arch (str | dict): Its arch.
        weights (RenamedWeights): The file's.

    Returns:
        dict[str, tuple[int, ...]]: Shapes by mmssm's names.

    Raises:
        CheckpointError: No model has this arch.
    """
    shapes = shapes_of(lambda: backbone(arch, out_indices=(0, 1, 2, 3)))
    has_head = weights.has_head()
    width = shapes['norm3.weight'][0]
    for i in range(4):
        norm = f'norm{i}.'
        if not (_any_starts(weights, norm) or (has_head and i == 3)):
            shapes = {k: v for k, v in shapes.items() if k[:6] != norm}
    return {**shapes, **weights.head_shapes(width)}


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    """Names and shapes of the tensors of the model that ``build`` returns.

    Raises:
        CheckpointError: No such model can be built.
    """
    try:
        with torch.device('meta'):  # holds no numbers
            model = build()
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f'its keys and shapes show an arch that no model has: {error}'
        ) from error
    return {k: tuple(v.shape) for k, v in model.state_dict().items()}


def _pattern(template: str) -> re.Pattern:
    parts = re.split('([#*])', template)
    return re.compile(''.join(_HOLES.get(p) or re.escape(p) for p in parts))


def _fill(template: str, values: Iterable[str]) -> str:
    rest = iter(values)
    return re.sub('[#*]', lambda _: next(rest), template)


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _any_starts(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _unknown(key: str) -> CheckpointError:
    return CheckpointError(
        f'key {key!r} is not one of its own; this may be a variant that '
        'mmssm does not have'
    )
