"""Learning rates that differ by the layers of a backbone."""

from collections import Counter
from itertools import groupby

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmssm.utils import ConfigError
from mmssm.utils.errors import did_you_mean

_INHERITED_KEYS = (
    'custom_keys',
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'flat_decay_mult',
    'dwconv_decay_mult',
    'dcn_offset_lr_mult',
    'bypass_duplicate',
)
_KEYS = ('layer_decay_rate', 'stem_lr_mult', *_INHERITED_KEYS)
# Biases that a mixer holds itself, and norms, which mmengine does not know.
_BIASES = ('conv_bias', 'dt_projs_bias')
_NORMS = (nn.RMSNorm,)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise learning-rate decay for any model with a ``backbone``.

    Of n layers, layer i learns with ``layer_decay_rate ** (n - 1 - i)`` times
    the rate that it would have otherwise: discriminative fine-tuning of
    `ULMFiT <https://arxiv.org/abs/1801.06146>`_, as `BEiT
    <https://arxiv.org/abs/2106.08254>`_ does it. The backbone's
    ``get_layer_depth`` tells the layers. In mmssm's backbones, layer 0 is the
    stem, the positions and the class token. Each block is a layer, with the
    downsampling after it. The last layer is all the rest, such as norms of
    outputs, neck and heads. MMPretrain's ViT, Swin and others have
    ``get_layer_depth``, too.

    Unlike mmengine's constructor, it counts RMSNorm among the norms, and a
    mixer's ``conv_bias`` and ``dt_projs_bias`` among the biases.

    A schedule multiplies the rates of all layers alike, but an ``eta_min``
    above 0 is one rate for all of them; ``eta_min_ratio`` keeps their ratios.

    Args:
        optim_wrapper_cfg (dict): As in mmengine's
            ``DefaultOptimWrapperConstructor``; ``optimizer`` must set ``lr``.
        paramwise_cfg (dict): What ``DefaultOptimWrapperConstructor`` takes,
            with the same meaning, and one or both of:

            - **layer_decay_rate** (float): Ratio of the rates of two
              consecutive layers, above 0 and at most 1. Defaults to 1.
            - **stem_lr_mult** (float): Factor of the rate of layer 0 (the
              stem, the positions and the class token), instead of what
              ``layer_decay_rate`` makes of it. With 0, layer 0 keeps its
              initial or pretrained weights.

            An ``lr_mult`` of ``custom_keys`` is one more factor.

    Raises:
        ConfigError: On an unknown or missing key of ``paramwise_cfg`` or a
            value out of range. When the optimizer is built: the model has no
            ``backbone``, or it does not tell its layers.

    Example:
        >>> optim_wrapper = dict(
        ...     constructor='LayerDecayOptimWrapperConstructor',
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     paramwise_cfg=dict(layer_decay_rate=0.9, flat_decay_mult=0.0),
        ... )
    """

    def _validate_cfg(self) -> None:
        """Also check the keys, and the values of the class's own."""
        super()._validate_cfg()
        name = type(self).__name__
        unknown = sorted(set(self.paramwise_cfg) - set(_KEYS))
        if unknown:
            raise ConfigError(
                f'{name}: unknown key {unknown[0]!r} in paramwise_cfg; it '
                f'takes {", ".join(_KEYS)}{did_you_mean(unknown[0], _KEYS)}'
            )
        rate = self.paramwise_cfg.get('layer_decay_rate')
        stem = self.paramwise_cfg.get('stem_lr_mult')
        if rate is None and stem is None:
            raise ConfigError(
                f'{name}: paramwise_cfg must set layer_decay_rate (such as '
                '0.9) or stem_lr_mult; without them, leave the constructor out'
            )
        if rate is not None and not (_is_number(rate) and 0 < rate <= 1):
            raise ConfigError(
                f'{name}: layer_decay_rate must be a number above 0 and at '
                f'most 1, got {rate!r}'
            )
        if stem is not None and not (_is_number(stem) and stem >= 0):
            raise ConfigError(
                f'{name}: stem_lr_mult must be a number, 0 or more, got '
                f'{stem!r}'
            )
        if self.base_lr is None:
            raise ConfigError(
                f'{name} multiplies the rate of optim_wrapper.optimizer, '
                'which sets no lr; set it'
            )

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a group for each parameter, and scale the groups' rates.

        Args:
            params (list[dict]): Groups of the optimizer, extended in place.
            module (nn.Module): The model, or a part of it.
            prefix (str): The part's name in the model; '' for the model.
            is_dcn_module (int | float, optional): See
                ``DefaultOptimWrapperConstructor``.
        """
        first = len(params)
        super().add_params(params, module, prefix, is_dcn_module)
        self._add_kinds(params[first:], module, prefix)
        if not prefix:  # the call for the model comes back last
            self._scale_rates(params, module)

    def _add_kinds(
        self, groups: list[dict], module: nn.Module, prefix: str
    ) -> None:
        """Set the rates and decays of norms and biases of other kinds.

        Args:
            groups (list[dict]): The groups of the module and its children.
            module (nn.Module): The model, or a part of it.
            prefix (str): The part's name in the model; '' for the model.
        """
        group_of = {id(group['params'][0]): group for group in groups}
        custom = self.paramwise_cfg.get('custom_keys', {})
        for name, param in module.named_parameters(recurse=False):
            kind, full_name = _other_kind(module, name), f'{prefix}.{name}'
            group = group_of.get(id(param))
            if kind is None or group is None:
                continue
            if any(key in full_name for key in custom):
                continue
            changed = {}
            rate = self.paramwise_cfg.get('bias_lr_mult')
            if kind == 'bias' and rate is not None:
                changed['lr'] = self.base_lr * rate
            decay = self.paramwise_cfg.get(f'{kind}_decay_mult')
            if decay is not None:
                changed['weight_decay'] = self.base_wd * decay
            group.update(changed)
            for key, value in changed.items():
                # In mmengine's words, as the lines of the other parameters.
                print_log(
                    f'paramwise_options -- {full_name}:{key}={value}',
                    logger='current',
                )

    def _scale_rates(self, params: list[dict], model: nn.Module) -> None:
        backbone = self._find_backbone(model)
        names = {id(p): name for name, p in model.named_parameters()}
        sizes: Counter[int] = Counter()
        for group in params:
            (param,) = group['params']
            layer, num_layers = backbone.get_layer_depth(
                names[id(param)], 'backbone.'
            )
            scale = self._scale(layer, num_layers)
            group['lr'] = group.get('lr', self.base_lr) * scale
            sizes[layer] += param.numel()
        if sizes:
            print_log(self._table(sizes, num_layers), logger='current')

    def _find_backbone(self, model: nn.Module) -> nn.Module:
        name = type(self).__name__
        backbone = getattr(model, 'backbone', None)
        if not isinstance(backbone, nn.Module):
            raise ConfigError(
                f'{name} scales the rates of the layers of model.backbone, '
                f'but {type(model).__name__} has none; leave the constructor '
                'out'
            )
        if not hasattr(backbone, 'get_layer_depth'):
            kind = type(backbone)
            raise ConfigError(
                f'{name}: the backbone {kind.__module__}.{kind.__name__} has '
                'no get_layer_depth and so does not tell its layers; take a '
                'backbone of mmssm, or one of MMPretrain that has it (such as '
                "type='mmpretrain.VisionTransformer' or "
                "'mmpretrain.SwinTransformer'), or leave the constructor out"
            )
        return backbone

    def _scale(self, layer: int, num_layers: int) -> float:
        """The factor of a layer's rate."""
        stem = self.paramwise_cfg.get('stem_lr_mult')
        if layer == 0 and stem is not None:
            return stem
        rate = self.paramwise_cfg.get('layer_decay_rate')
        return 1.0 if rate is None else rate ** (num_layers - 1 - layer)

    def _table(self, sizes: Counter[int], num_layers: int) -> str:
        """Layers, the factor of their rates, the number of parameters.

        Consecutive layers with one factor share a line.
        """
        lines = [
            f'{type(self).__name__}: every rate, of the lines above too, is '
            'multiplied by the factor of its layer:',
            '   layer      factor    parameters',
        ]
        runs = groupby(sorted(sizes), lambda i: self._scale(i, num_layers))
        for scale, run in runs:
            layers = list(run)
            label = str(layers[0])
            if len(layers) > 1:
                label += f'-{layers[-1]}'
            size = sum(sizes[i] for i in layers)
            lines.append(f'{label:>8}  {scale:>10.4g}  {size:>12,}')
        return '\n'.join(lines)


def _other_kind(module: nn.Module, name: str) -> str | None:
    """The kind of a parameter that mmengine takes for a weight."""
    if isinstance(module, _NORMS):
        return 'norm'
    return 'bias' if name in _BIASES else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
