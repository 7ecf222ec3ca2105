"""Rename an original author's weights to mmssm's names, and check them.

A rule is a pair of templates: an original key and mmssm's. In a template,
``#`` stands for a number and ``*`` for the rest of a key. Both templates of a
rule have the same of them, in the same order. Where several rules match a
key, the first one counts.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmssm.utils import CheckpointError

from ..backbones.base import Arch, SSMBackbone
from ..backbones.hierarchical import HierarchicalBackbone
from .own_names import split_gates

Rules = Sequence[tuple[str, str]]
Shapes = dict[str, tuple[int, ...]]
# The backbone's and the head's weights by mmssm's names, and the arch.
Converted = tuple[dict[str, Tensor], dict[str, Tensor], Arch]

_WILDCARDS = {'#': r'(\d+)', '*': r'(.+)'}
_HEAD = 'head.'


def between_stages(old: str, new: str) -> Rules:
    """The rules for what is between two of the four stages.

    The originals count it with the stage before it, mmssm with that after it.

    Args:
        old (str): The original template, with ``{}`` for the stage.
        new (str): mmssm's.
    """
    return tuple((old.format(i), new.format(i + 1)) for i in range(3))


class RenamedWeights(dict[str, Tensor]):
    """Weights by mmssm's names, which remember their original names.

    Tensors of a classifier's last layer start with ``head.``, those of the
    backbone have no prefix.

    Args:
        state_dict (Mapping[str, Tensor]): Weights by the original names.
        rules (Rules): From the original names to mmssm's.

    Raises:
        CheckpointError: No rule matches a key, or two keys get one name.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], rules: Rules) -> None:
        super().__init__()
        self._originals: dict[str, str] = {}
        compiled = [(_pattern(old), (old, new)) for old, new in rules]
        used = set()
        for key, value in state_dict.items():
            rule, found = _first_match(compiled, key)
            used.add(rule)
            name = _fill(rule[1], found.groups())
            if name in self:
                raise CheckpointError(
                    f'its keys {self._originals[name]!r} and {key!r} mean the '
                    'same'
                )
            self[name] = value
            self._originals[name] = key
        parted = split_gates(self)
        self.clear()
        self.update(parted)
        # A missing key is named by a rule that other keys have followed, if
        # there is one: authors' releases differ in their names.
        preferred = [rule for rule in rules if rule in used]
        self._inverse = [
            (_pattern(new), old) for old, new in (*preferred, *rules)
        ]

    def original(self, name: str) -> str:
        """The original name of the tensor ``name``, which may be missing."""
        # The originals have both in one tensor.
        name = name.replace('.gate_proj.', '.in_proj.')
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
            CheckpointError: The tensor or the axis does not exist, or the
                size is 0.
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
        """Number of blocks of each of the four stages.

        Raises:
            CheckpointError: The stages are not 0, 1, 2 and 3.
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
        """Raise unless the tensors are exactly these.

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
        """Whether there is any tensor of a classifier's last layer."""
        return any(name.startswith(_HEAD) for name in self)

    def head_shapes(self, width: int) -> Shapes:
        """Shapes of a classifier's last layer on ``width`` channels.

        They are empty if there is no such layer.

        Raises:
            CheckpointError: A tensor of the layer is empty.
        """
        if not self.has_head():
            return {}
        known = 'weight' if 'head.fc.weight' in self else 'bias'
        classes = self.size(f'head.fc.{known}', 0)
        return {'head.fc.weight': (classes, width), 'head.fc.bias': (classes,)}

    def split_head(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The backbone's weights, and the head's without their prefix."""
        backbone = {k: v for k, v in self.items() if not k.startswith(_HEAD)}
        head = {
            k[len(_HEAD) :]: v for k, v in self.items() if k.startswith(_HEAD)
        }
        return backbone, head

    def _missing(self, name: str) -> CheckpointError:
        return CheckpointError(f'key {self.original(name)!r} is missing')


class Packing(NamedTuple):
    """Tensors that mmssm holds as one and an original as several.

    Part i of the tensor ``<name>`` is called ``<name>.<i>``. Parts are stacked
    along a new first axis, or joined along their first axis if mmssm's tensor
    has no more axes than a part.

    Args:
        num_parts (int): Parts of each tensor.
        ends (tuple[str, ...]): How the names of these tensors end.
        filters (tuple[str, ...]): How the names of tensors end whose parts
            are depthwise filters, (C, 1, ...) in the original.
    """

    num_parts: int
    ends: tuple[str, ...]
    filters: tuple[str, ...] = ()

    def unpack_shapes(self, shapes: Shapes) -> Shapes:
        """Mmssm's shapes, with each packed tensor replaced by its parts."""
        unpacked = {}
        for name, shape in shapes.items():
            if not name.endswith((*self.ends, *self.filters)):
                unpacked[name] = shape
                continue
            part = shape[1:]
            if shape[0] != self.num_parts:
                part = (shape[0] // self.num_parts, *part)
            if name.endswith(self.filters):
                part = (part[0], 1, *part[1:])
            for i in range(self.num_parts):
                unpacked[f'{name}.{i}'] = part
        return unpacked

    def pack(
        self, weights: Mapping[str, Tensor], shapes: Shapes
    ) -> dict[str, Tensor]:
        """The weights, with parts packed to tensors of mmssm's shapes."""
        packed = {}
        for key, value in weights.items():
            name, _, number = key.rpartition('.')
            if not name.endswith((*self.ends, *self.filters)):
                packed[key] = value
            elif number == '0':
                parts = [weights[f'{name}.{i}'] for i in range(self.num_parts)]
                packed[name] = torch.stack(parts).view(shapes[name])
        return packed


def arch_name(
    backbone: type[SSMBackbone], fields: Mapping[str, Any]
) -> str | None:
    """The backbone's first arch with these fields, if there is one."""
    for name, settings in backbone.arch_settings.items():
        if all(_listed(settings[k]) == _listed(v) for k, v in fields.items()):
            return name
    return None


def expected_shapes(
    backbone: type[HierarchicalBackbone], arch: Arch, weights: RenamedWeights
) -> Shapes:
    """Names and shapes of the tensors that a file of this arch must hold.

    The norm of an output is expected if the file has a part of it, and a
    classifier's head if the file has a part of that; with a head, the norm
    before it is expected, too.

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
        has_norm = any(name.startswith(norm) for name in weights)
        if not has_norm and not (has_head and i == 3):
            shapes = {k: v for k, v in shapes.items() if k[:6] != norm}
    return {**shapes, **weights.head_shapes(width)}


def shapes_of(build: Callable[[], nn.Module]) -> Shapes:
    """Names and shapes of the tensors of the model that ``build`` returns.

    Raises:
        CheckpointError: No such model can be built.
    """
    try:
        with torch.device('meta'):  # without memory for the numbers
            model = build()
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f'its keys and shapes show an arch that no model has: {error}'
        ) from error
    return {k: tuple(v.shape) for k, v in model.state_dict().items()}


def _first_match(
    compiled: Sequence[tuple[re.Pattern[str], tuple[str, str]]], key: str
) -> tuple[tuple[str, str], re.Match[str]]:
    """The first rule that matches a key, and how it does."""
    for pattern, rule in compiled:
        found = pattern.fullmatch(key)
        if found:
            return rule, found
    raise _unknown(key)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split('([#*])', template)
    return re.compile(
        ''.join(_WILDCARDS.get(p) or re.escape(p) for p in parts)
    )


def _fill(template: str, values: Iterable[str]) -> str:
    rest = iter(values)
    return re.sub('[#*]', lambda _: next(rest), template)


def _listed(value: Any) -> Any:
    """A tuple as a list: files hold lists, arch tables tuples."""
    return list(value) if isinstance(value, tuple) else value


def _unknown(key: str) -> CheckpointError:
    return CheckpointError(
        f'key {key!r} is not one of its own; this may be a variant that '
        'mmssm does not have'
    )
