"""MESA: a classifier also learns from the running mean of its weights."""

import torch
import torch.nn.functional as F
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmssm.utils import ConfigError


@HOOKS.register_module()
class MESAHook(Hook):
    """Add MESA's loss to the training of a classifier.

    MESA (memory-efficient sharpness-aware training, from `Sharpness-Aware
    Training for Free <https://arxiv.org/abs/2205.14083>`_) looks for flat
    minima. From a given share of the training on, the model also learns to
    predict what the running mean of its weights predicts. The loss is that of
    Spatial-Mamba's authors, see :func:`soft_cross_entropy`. It is logged as
    ``loss_mesa``, beside the classifier's own ``loss``.

    The teacher is the model of EMAHook. It is already part of every
    checkpoint, so no second copy is needed. It gets the same batch as the
    model, including mixed images, in eval mode and without gradient.
    Validation, testing and the names of weights do not change.

    The loss is computed in the model's ``forward``, so it works with mixed
    precision, accumulated gradients and DistributedDataParallel. The order of
    the two hooks does not matter.

    Args:
        weight (float): Factor of the loss. Defaults to 1.
        begin (float): Share of the training's iterations without the loss.
            Defaults to 0.25. The first iteration never has it: there is no
            mean yet.

    Raises:
        ConfigError: ``weight`` or ``begin`` is out of range. When training
            starts: there is no EMAHook, or the model has no ``head``, or the
            ``head`` gives no logits.

    Example:
        >>> custom_hooks = [
        ...     dict(type='EMAHook', momentum=1e-4, update_buffers=True),
        ...     dict(type='mmssm.engine.MESAHook', weight=1.0),
        ... ]
    """

    def __init__(self, weight: float = 1.0, begin: float = 0.25) -> None:
        if not weight > 0:
            raise ConfigError(
                f'MESAHook: weight must be above 0, got {weight}; leave the '
                'hook out to train without it'
            )
        if not 0 <= begin < 1:
            raise ConfigError(
                'MESAHook: begin is a share of the training, from 0 to below '
                f'1, got {begin}; 0.25 starts after a quarter'
            )
        self.weight = weight
        self.begin = begin
        self._active = False
        self._handles: list = []
        self._teacher: nn.Module | None = None
        self._logits: Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        """Find the teacher and the head, and register the forward hooks."""
        means = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        if not means:
            raise ConfigError(
                'MESAHook learns from the weights that EMAHook averages, but '
                "custom_hooks has none; add dict(type='EMAHook', "
                'momentum=1e-4, update_buffers=True)'
            )
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        head = getattr(model, 'head', None)
        if not isinstance(head, nn.Module):
            raise _no_logits(model, 'has no module of the name head')
        self._teacher = means[0].ema_model.module.eval()
        self._unhook()
        self._handles = [
            head.register_forward_hook(self._note_logits),
            model.register_forward_hook(self._add_loss, with_kwargs=True),
        ]

    def before_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
    ) -> None:
        """Decide whether this iteration has the loss."""
        self._active = runner.iter >= max(1, self.begin * runner.max_iters)

    def after_train(self, runner: Runner) -> None:
        """Remove the forward hooks from the model."""
        self._unhook()

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._active = False
        self._logits = None

    def _note_logits(self, head: nn.Module, args: tuple, output) -> None:
        if head.training:
            self._logits = output

    def _add_loss(
        self, model: nn.Module, args: tuple, kwargs: dict, losses
    ) -> dict | None:
        """Add the loss to the losses that ``forward`` returns in training."""
        logits, self._logits = self._logits, None
        if not (model.training and kwargs.get('mode') == 'loss'):
            return None
        # Checked at the first step, not days later when the loss begins.
        if not isinstance(logits, Tensor):
            kind = type(logits).__name__
            raise _no_logits(model, f'has a head that gives a {kind}')
        if not self._active:
            return None
        with torch.no_grad():
            target = self._teacher(*args, **{**kwargs, 'mode': 'tensor'})
        loss = soft_cross_entropy(logits, target)
        return {**losses, 'loss_mesa': self.weight * loss}


def soft_cross_entropy(logits: Tensor, target_logits: Tensor) -> Tensor:
    """Cross entropy with the softmax of other logits as target.

    Args:
        logits (Tensor): Logits of the student, (B, classes).
        target_logits (Tensor): Logits of the teacher, (B, classes).

    Returns:
        Tensor: The mean over the batch, a float32 scalar. Its gradient does
        not reach the teacher.
    """
    target = target_logits.detach().float().softmax(-1)
    return F.cross_entropy(logits.float(), target)


def _no_logits(model: nn.Module, found: str) -> ConfigError:
    return ConfigError(
        f'MESAHook needs a classifier, whose head turns features into logits '
        f'(B, classes); {type(model).__name__} {found}; leave the hook out'
    )
