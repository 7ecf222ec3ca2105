"""What every backbone of the package shares: arguments, freezing, loading."""

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmssm.utils import CheckpointError, UserError
from mmssm.utils.config import registered
from mmssm.utils.errors import did_you_mean

from .fitting import SMALLEST_SHARE, compare, fit_first_convolution
from .part_loading import FILE, fit_part

Arch = str | dict[str, Any]
InitCfg = dict[str, Any] | list[dict[str, Any]]
_FILE_KEYS = ('checkpoint', 'prefix', 'strict')


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
    untrained_init_cfg: list[dict[str, Any]] = []  # without a file
    has_weights = False  # from init_weights or from a file

    def __init__(
        self,
        arch: Arch,
        drop_path_rate: float | None,
        out_indices: int | Sequence[int],
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

    def _parse_out_indices(
        self, indices: int | Sequence[int]
    ) -> tuple[int, ...]:
        """From 0; a negative index counts from the end."""
        count = self._count_stages()
        given = [indices] if isinstance(indices, int) else indices
        if isinstance(given, Sequence):
            found = [i + count if i in range(-count, 0) else i for i in given]
            if found and len(set(found) & set(range(count))) == len(found):
                return tuple(found)
        raise UserError(
            f'{type(self).__name__}: out_indices must name stages 0 to '
            f'{count - 1} (negative: from the end), each at most once, got '
            f'{indices}'
        )

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
        raise NotImplementedError

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
        """Initialize, or load a pretrained file.

        The latter is ``dict(type='Pretrained', checkpoint=...)`` with, if need
        be, ``prefix`` and ``strict``, see :meth:`load_pretrained`.

        Raises:
            CheckpointError: If the file's tensors are not this model's.
        """
        given = self.init_cfg
        cfgs = [given] if isinstance(given, dict) else list(given or [])
        if not all(isinstance(cfg, dict) and cfg.get('type') for cfg in cfgs):
            raise UserError(
                'init_cfg must be a dict with a type, or a list of them, got '
                f"{given!r}; for a file write dict(type='Pretrained', "
                'checkpoint=...)'
            )
        files = list(filter(_names_a_file, cfgs))
        others = [cfg for cfg in cfgs if not _names_a_file(cfg)]
        in_part = any(c.get('strict') is False for c in files)
        if in_part and not others:
            others = self.untrained_init_cfg
        if others or in_part or not files:
            self.init_cfg = others
            super().init_weights()
            self.init_cfg = given
        for cfg in files:
            named = ('type', '_scope_')
            cfg = {k: v for k, v in cfg.items() if k not in named}
            unknown = sorted(set(cfg) - set(_FILE_KEYS))
            if 'checkpoint' not in cfg or unknown:
                meant = did_you_mean(unknown[0], _FILE_KEYS) if unknown else ''
                raise UserError(
                    "init_cfg of type 'Pretrained' takes checkpoint and, if "
                    'need be, prefix and strict; got '
                    f'{", ".join(cfg) or "none of them"}{meant}'
                )
            self.load_pretrained(
                cfg['checkpoint'], cfg.get('prefix'), cfg.get('strict', True)
            )
        self._is_init = self.has_weights = True

    def load_pretrained(
        self, path: str, prefix: str | None = None, strict: bool = True
    ) -> None:
        """Load this backbone's part of a checkpoint.

        By default all of it is loaded, or nothing. Only the norms of outputs
        may differ, since they depend on ``out_indices``. What the file lacks
        keeps its initial values. The log names everything that is left out.

        The first convolution is fitted to ``in_channels``: each channel gets
        the mean of the file's filters, times the file's channels over the
        model's. Learned positions are fitted to ``img_size``.

        Args:
            path (str): File or URL.
            prefix (str, optional): How the backbone's keys start in the file.
                Defaults to 'backbone.' where there are such keys.
            strict (bool): If False, load every tensor whose name and shape
                fit, and only those. Defaults to True.

        Raises:
            CheckpointError: On keys that are missing, unknown or of another
                shape; names the first. With ``strict=False``, if less than a
                tenth of the model's tensors fit.
        """
        if not isinstance(strict, bool):
            raise UserError(
                f'{type(self).__name__}: strict must be True (all tensors '
                f'or none) or False (those that fit), got {strict!r}'
            )
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        weights = self._select_weights(path, checkpoint, prefix)
        weights = self.fit_weights(weights)
        fit = compare(self.state_dict(), weights)
        if strict:
            unknown = [k for k in fit.unknown if not self._is_optional(k)]
            missing = [k for k in fit.missing if not self._is_optional(k)]
            if unknown or missing or fit.reshaped:
                self._raise_mismatch(
                    path, checkpoint, unknown, missing, fit.shapes()
                )
        elif fit.share() < SMALLEST_SHARE:
            raise CheckpointError(
                f'{path} is a wrong file: only {len(fit.taken)} of the '
                f'{len(fit.own)} tensors of {type(self).__name__} fit in name '
                'and shape; choose another one, set arch to what it holds, or '
                'set prefix in init_cfg to what stands before the backbone in '
                f'its keys (its first: {next(iter(weights), None)!r})'
            )
        self.load_state_dict({k: weights[k] for k in fit.taken}, strict=False)
        self.has_weights = True
        print_log(f'{type(self).__name__}: {path}: {fit}', logger='current')

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load tensors; those of a whole model's file are checked first."""
        file = local_metadata.get(FILE)
        if file is not None and prefix:
            fit_part(self, file, state_dict, prefix, unexpected_keys)
        own = {
            key[len(prefix) :]: value
            for key, value in state_dict.items()
            if key.startswith(prefix)
        }
        for key, value in self.fit_positions(own).items():
            state_dict[prefix + key] = value
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def fit_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The file's tensors, fitted to this model where that is possible.

        Args:
            weights (dict[str, Tensor]): By this backbone's names. The first
                convolution is fitted to ``in_channels``, learned positions to
                ``img_size``; other tensors stay as they are.
        """
        return fit_first_convolution(self, self.fit_positions(weights))

    def fit_positions(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The file's tensors, with learned positions fitted to ``img_size``.

        Args:
            weights (dict[str, Tensor]): By this backbone's names.
        """
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
        own = (
            f'arch {self.arch_name!r}' if self.arch_name else 'with this arch'
        )
        raise CheckpointError(
            f'{path} {holds}does not fit {type(self).__name__} {own}: '
            f'{"; ".join(problems)}. '
            'Set arch, and what else the model is built with, to what the '
            'file holds, or choose another file; to load what fits and leave '
            'out the rest, add strict=False to init_cfg'
        )


def _names_a_file(init_cfg: dict) -> bool:
    """Whether a part of ``init_cfg`` has the type 'Pretrained'."""
    return registered(WEIGHT_INITIALIZERS, init_cfg, None) is PretrainedInit
