"""What every backbone of the package shares: arguments, freezing, loading."""

import difflib
import inspect
import re
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Arch = str | dict


class SSMBackbone(BaseModule):
    """Base of all backbones.

    A subclass has norms at its outputs, called ``norm`` or ``norm{i}`` for
    stage i, and fills :attr:`arch_settings`. A plain model's layers are its
    stages.

    Args:
        out_indices (Sequence[int]): Stages whose maps are returned.
        num_stages (int): Stages there are.
        frozen_stages (int): The stem and stages up to this one stop learning;
            -1 freezes nothing.
        norm_eval (bool): Whether batch norms stay in eval mode while
            training.
        init_cfg (dict | list[dict], optional): OpenMMLab's initialisation.
            ``dict(type='Pretrained', checkpoint=...)`` takes mmssm's files
            and the original authors' alike.

    Raises:
        TypeError: On an argument that does not exist.
        ValueError: On an index out of range.
    """

    arch_settings: dict[str, dict] = {}
    arch_aliases: dict[str, str] = {}

    def __new__(cls, *args, **kwargs):
        """Check argument names first, to name the one that was meant."""
        known = inspect.signature(cls.__init__).parameters
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return super().__new__(cls)  # a subclass that passes them on
        for name in kwargs:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean '{close[0]}'? " if close else ''
                names = ', '.join(n for n in known if n != 'self')
                raise TypeError(
                    f"{cls.__name__} has no argument '{name}'; {hint}"
                    f'Arguments: {names}'
                )
        return super().__new__(cls)

    def __init__(
        self,
        out_indices: Sequence[int],
        num_stages: int,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if (
            not isinstance(out_indices, Sequence)
            or not out_indices
            or not set(out_indices) <= set(range(num_stages))
            or len(set(out_indices)) != len(out_indices)
        ):
            raise ValueError(
                f'{type(self).__name__}: out_indices must name stages 0 to '
                f'{num_stages - 1}, each at most once, got {out_indices}'
            )
        if not -1 <= frozen_stages < num_stages:
            raise ValueError(
                f'{type(self).__name__}: frozen_stages must be -1 (none) to '
                f'{num_stages - 1}, got {frozen_stages}'
            )
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    @classmethod
    def parse_arch(cls, arch: Arch) -> tuple[str | None, dict]:
        """The canonical name (None for a dict) and all fields of ``arch``.

        A dict may leave fields out: they are those of the default row.

        Raises:
            ValueError: On an unknown name or field; lists the known ones.
        """
        if isinstance(arch, str):
            name = cls.arch_aliases.get(arch, arch)
            if name not in cls.arch_settings:
                known = ', '.join([*cls.arch_settings, *cls.arch_aliases])
                raise ValueError(
                    f"{cls.__name__} has no arch '{arch}'; known: {known}, or "
                    'a dict of the same fields'
                )
            return name, dict(cls.arch_settings[name])
        if not isinstance(arch, dict):
            raise ValueError(
                f'{cls.__name__}: arch must be a name or a dict, got {arch!r}'
            )
        defaults = next(iter(cls.arch_settings.values()))
        unknown = sorted(set(arch) - set(defaults))
        if unknown:
            raise ValueError(
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
        """What ``frozen_stages`` freezes, but for the outputs' norms."""
        return [self.stem, *self.stages[: self.frozen_stages + 1]]

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode; frozen stages (and with ``norm_eval`` batch norms)
        stay in eval mode.
        """
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise, or load a pretrained file strictly.

        Raises:
            RuntimeError: If the file's tensors are not this model's.
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
                raise ValueError(
                    "init_cfg of type 'Pretrained' takes checkpoint and, if "
                    f'need be, prefix; got {", ".join(cfg) or "neither"}'
                )
            self.load_pretrained(cfg['checkpoint'], cfg.get('prefix'))
        self._is_init = True

    def load_pretrained(self, path: str, prefix: str | None = None) -> None:
        """Load this backbone's part of a checkpoint, all of it or nothing.

        Only the norms after the outputs may differ, since they depend on
        what is returned: those the file lacks start fresh.

        Args:
            path (str): File or URL.
            prefix (str, optional): Of the backbone's keys in the file.
                Defaults to 'backbone.' where there are such keys.

        Raises:
            RuntimeError: On keys that are missing, unknown or of another
                shape; names the first.
        """
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        weights = self._own_weights(path, checkpoint, prefix)
        weights = self._adapt_weights(weights)
        own = self.state_dict()
        fresh = [k for k in own if k not in weights]
        unknown = [
            k for k in weights if k not in own and not self._may_start_fresh(k)
        ]
        missing = [k for k in fresh if not self._may_start_fresh(k)]
        reshaped = [
            f'{k} {tuple(weights[k].shape)} instead of {tuple(own[k].shape)}'
            for k in own
            if k in weights and weights[k].shape != own[k].shape
        ]
        if unknown or missing or reshaped:
            self._refuse(path, checkpoint, unknown, missing, reshaped)
        self.load_state_dict(
            {k: v for k, v in weights.items() if k in own}, strict=False
        )
        print_log(
            f'{type(self).__name__}: loaded {len(own) - len(fresh)} tensors '
            f'from {path}; start fresh: {", ".join(fresh) or "none"}',
            logger='current',
        )

    def _adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The file's tensors, fitted to this model where they can be."""
        return weights

    def _may_start_fresh(self, key: str) -> bool:
        """Whether a file may lack this tensor, or hold it without use.

        So it is with the norms of outputs: a classifier has one alone.
        """
        return re.match(r'norm\d*\.', key) is not None

    @staticmethod
    def _own_weights(
        path: str, checkpoint: dict, prefix: str | None
    ) -> dict[str, Tensor]:
        """The file's tensors under ``prefix``, which is taken off."""
        weights = checkpoint
        if isinstance(checkpoint, dict):
            weights = checkpoint.get('state_dict', checkpoint)
        if not isinstance(weights, dict) or not all(
            isinstance(v, Tensor) for v in weights.values()
        ):
            raise RuntimeError(
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
            raise RuntimeError(
                f'{path} has no keys that start with {prefix!r}; its first is '
                f'{next(iter(weights), None)!r}: set prefix in init_cfg to '
                'what stands before the backbone, or leave it out'
            )
        return under

    def _refuse(self, path, checkpoint, unknown, missing, reshaped) -> None:
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
        raise RuntimeError(
            f'{path} {holds}does not fit {type(self).__name__} arch '
            f'{self.arch_name or "given as a dict"!r}: {"; ".join(problems)}. '
            'Set arch, and what else the model is built with, to what the '
            'file holds, or choose another file'
        )
