"""What every backbone of the package shares: arguments, freezing, loading."""

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmssm.utils import CheckpointError, UserError

Arch = str | dict[str, Any]
InitCfg = dict[str, Any] | list[dict[str, Any]]


class SSMBackbone(BaseModule):
    """Base of all backbones.

    A subclass fills :attr:`arch_settings`, counts its stages and blocks
    (:meth:`_count_stages`, :meth:`_count_blocks`) and says to which block a
    parameter belongs (:meth:`_layer_of`); the layers of a plain model are its
    stages and its blocks. Norms at its outputs are called ``norm``, or
    ``norm{i}`` for stage i.

    The arguments are described at the two assemblies:
    :class:`mmssm.backbones.HierarchicalBackbone` and
    :class:`mmssm.backbones.PlainBackbone`.

    Raises:
        UserError: On an unknown arch or field, or an index out of range.
    """

    arch_settings: dict[str, dict[str, Any]] = {}
    arch_aliases: dict[str, str] = {}
    default_arch = 'tiny'  # of an arch dict's missing fields

    def __init__(
        self,
        arch: Arch,
        drop_path_rate: float | None,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        with_cp: bool,
        init_cfg: InitCfg | None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch_name, self.arch = self.parse_arch(arch)
        if drop_path_rate is None:
            drop_path_rate = self.arch['drop_path_rate']
        self.drop_path_rate = drop_path_rate
        self.out_indices = self._parse_out_indices(out_indices)
        last = self._count_stages() - 1
        if not -1 <= frozen_stages <= last:
            raise UserError(
                f'{type(self).__name__}: frozen_stages must be -1 (none) to '
                f'{last}, got {frozen_stages}'
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each map or vector that ``forward`` returns."""
        return tuple(map(self._channels_of, sorted(self.out_indices)))

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Pixels between two tokens, of each map that ``forward`` returns.

        Empty if it returns a vector.
        """
        return tuple(map(self._stride_of, sorted(self.out_indices)))

    def _count_stages(self) -> int:
        """The number of stages of ``self.arch``."""
        raise NotImplementedError

    def _channels_of(self, stage: int) -> int:
        """Channels of a stage's map."""
        raise NotImplementedError

    def _stride_of(self, stage: int) -> int:
        """Pixels between two tokens of a stage's map."""
        raise NotImplementedError

    def _count_blocks(self) -> int:
        """The number of blocks of ``self.arch``, over all stages."""
        raise NotImplementedError

    def _layer_of(self, name: str) -> int | None:
        """The layer of a parameter of this backbone.

        0 before the first block, i in and after the i-th block, counted from
        1. None for what follows the last block.
        """
        raise NotImplementedError

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """The layer of a parameter, for layer-wise learning rates.

        The protocol and the layers are those of MMPretrain's backbones. Layer
        0 is the stem, the positions and the class token. Each block is a
        layer, counted over all stages. Downsampling is in the layer of the
        block before it, as is a norm between that block and the downsampling.
        The last layer has the norms of outputs, what follows the backbone, and
        any other parameter.

        Args:
            param_name (str): The name of the parameter in the model.
            prefix (str): How the names of this backbone's parameters start,
                such as 'backbone.'. Defaults to ''.

        Returns:
            tuple[int, int]: The layer, from 0, and the number of layers, which
            is that of blocks + 2.
        """
        last = self._count_blocks() + 1
        layer = None
        if param_name.startswith(prefix):
            layer = self._layer_of(param_name[len(prefix) :])
        return last if layer is None else layer, last + 1

    def _parse_out_indices(self, indices: Sequence[int]) -> tuple[int, ...]:
        num_stages = self._count_stages()
        if (
            not isinstance(indices, Sequence)
            or not indices
            or not set(indices) <= set(range(num_stages))
            or len(set(indices)) != len(indices)
        ):
            raise UserError(
                f'{type(self).__name__}: out_indices must name stages 0 to '
                f'{num_stages - 1}, each at most once, got {indices}'
            )
        return tuple(indices)

    def _drop_path_rates(self, num_blocks: int) -> list[float]:
        """One rate for each block of the model."""
        return np.linspace(0, self.drop_path_rate, num_blocks).tolist()

    @classmethod
    def parse_arch(cls, arch: Arch) -> tuple[str | None, dict[str, Any]]:
        """The canonical name (None for a dict) and all fields of ``arch``.

        Fields that a dict leaves out are those of :attr:`default_arch`.

        Raises:
            UserError: On an unknown name or field; lists the known ones.
        """
        if isinstance(arch, str):
            name = cls.arch_aliases.get(arch, arch)
            if name not in cls.arch_settings:
                known = ', '.join([*cls.arch_settings, *cls.arch_aliases])
                raise UserError(
                    f"{cls.__name__} has no arch '{arch}'; known: {known}, or "
                    'a dict of the same fields'
                )
            return name, dict(cls.arch_settings[name])
        if not isinstance(arch, dict):
            raise UserError(
                f'{cls.__name__}: arch must be a name or a dict, got {arch!r}'
            )
        defaults = cls.parse_arch(cls.default_arch)[1]
        unknown = sorted(set(arch) - set(defaults))
        if unknown:
            raise UserError(
                f'{cls.__name__}: unknown arch field {unknown[0]!r}; known: '
                f'{", ".join(defaults)}'
            )
        return None, {**defaults, **arch}

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = self._frozen_parts()
        for i in range(self.frozen_stages + 1):
            if hasattr(self, f'norm{i}'):
                frozen.append(getattr(self, f'norm{i}'))
        for part in frozen:
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def _frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        """What ``frozen_stages`` freezes, without the norms of outputs."""
        return [self.stem, *self.stages[: self.frozen_stages + 1]]

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode.

        Frozen stages stay in eval mode; so do batch norms with ``norm_eval``.
        """
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Initialize, or load a pretrained file strictly.

        Raises:
            CheckpointError: If the file's tensors are not this model's.
        """
        given = self.init_cfg
        cfgs = [given] if isinstance(given, dict) else list(given or [])
        kinds = ('Pretrained', PretrainedInit)
        files = [c for c in cfgs if c.get('type') in kinds]
        others = [c for c in cfgs if c.get('type') not in kinds]
        if others or not files:
            self.init_cfg = others
            super().init_weights()
            self.init_cfg = given
        for cfg in files:
            cfg = {k: v for k, v in cfg.items() if k != 'type'}
            if not {'checkpoint'} <= set(cfg) <= {'checkpoint', 'prefix'}:
                raise UserError(
                    "init_cfg of type 'Pretrained' takes checkpoint and, if "
                    f'need be, prefix; got {", ".join(cfg) or "neither"}'
                )
            self.load_pretrained(cfg['checkpoint'], cfg.get('prefix'))
        self._is_init = True

    def load_pretrained(self, path: str, prefix: str | None = None) -> None:
        """Load this backbone's part of a checkpoint, all of it or nothing.

        Only the norms of outputs may differ, since they depend on
        ``out_indices``. Those that the file lacks keep their initial values.

        Args:
            path (str): File or URL.
            prefix (str, optional): How the backbone's keys start in the file.
                Defaults to 'backbone.' where there are such keys.

        Raises:
            CheckpointError: On keys that are missing, unknown or of another
                shape; names the first.
        """
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        weights = self._select_weights(path, checkpoint, prefix)
        weights = self._adapt_weights(weights)
        own = self.state_dict()
        fresh = [k for k in own if k not in weights]
        unknown = [
            k for k in weights if k not in own and not self._is_optional(k)
        ]
        missing = [k for k in fresh if not self._is_optional(k)]
        reshaped = [
            f'{k} {tuple(weights[k].shape)} instead of {tuple(own[k].shape)}'
            for k in own
            if k in weights and weights[k].shape != own[k].shape
        ]
        if unknown or missing or reshaped:
            self._raise_mismatch(path, checkpoint, unknown, missing, reshaped)
        self.load_state_dict(
            {k: v for k, v in weights.items() if k in own}, strict=False
        )
        print_log(
            f'{type(self).__name__}: loaded {len(own) - len(fresh)} tensors '
            f'from {path}; start fresh: {", ".join(fresh) or "none"}',
            logger='current',
        )

    def _adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The file's tensors, fitted to this model where that is possible."""
        return weights

    def _is_optional(self, key: str) -> bool:
        """Whether file and model need not both have this tensor.

        True for the norms of outputs: a classifier has only one.
        """
        return re.match(r'norm\d*\.', key) is not None

    @staticmethod
    def _select_weights(
        path: str, checkpoint: Any, prefix: str | None
    ) -> dict[str, Tensor]:
        """The file's tensors under ``prefix``, named without it."""
        weights = checkpoint
        if isinstance(checkpoint, dict):
            weights = checkpoint.get('state_dict', checkpoint)
        if not isinstance(weights, dict) or not all(
            isinstance(v, Tensor) for v in weights.values()
        ):
            raise CheckpointError(
                f'{path} holds no weights by name: a state dict, or a dict '
                "with one under 'state_dict', is expected"
            )
        if prefix is None and any(k.startswith('backbone.') for k in weights):
            prefix = 'backbone.'
        if not prefix:
            return weights
        prefix = prefix.rstrip('.') + '.'
        under = {
            k[len(prefix) :]: v
            for k, v in weights.items()
            if k.startswith(prefix)
        }
        if not under:
            raise CheckpointError(
                f'{path} has no keys that start with {prefix!r}; its first is '
                f'{next(iter(weights), None)!r}: set prefix in init_cfg to '
                'what stands before the backbone, or leave it out'
            )
        return under

    def _raise_mismatch(
        self,
        path: str,
        checkpoint: dict[str, Any],
        unknown: list[str],
        missing: list[str],
        reshaped: list[str],
    ) -> NoReturn:
        meta = checkpoint.get('meta') or {}
        found = meta.get('mmssm', {}).get('arch')
        problems = [
            f'{what} {len(keys)} (first: {keys[0]})'
            for what, keys in (
                ('unknown keys:', unknown),
                ('missing keys:', missing),
                ('other shapes:', reshaped),
            )
            if keys
        ]
        holds = f'holds arch {found!r} and ' if found else ''
        raise CheckpointError(
            f'{path} {holds}does not fit {type(self).__name__} arch '
            f'{self.arch_name or "given as a dict"!r}: {"; ".join(problems)}. '
            'Set arch, and what else the model is built with, to what the '
            'file holds, or choose another file'
        )
