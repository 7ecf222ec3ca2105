"""Test a model that is prepared for a CPU."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmssm.layers.packed import optimize_for_inference


@HOOKS.register_module()
class OptimizeHook(Hook):
    """Prepare the model before a test, see :func:`optimize_for_inference`.

    ``tools/test.py --optimize`` registers it; in a config for another tool,
    write ``custom_hooks=[dict(type='mmssm.engine.OptimizeHook')]``.

    Args:
        dtype (str): 'float32' or 'bfloat16', for matrix products. Defaults
            to 'float32'.
    """

    def __init__(self, dtype: str = 'float32') -> None:
        self.dtype: torch.dtype = getattr(torch, dtype)

    def before_test(self, runner: Runner) -> None:
        """Prepare the model with the weights that were loaded.

        Raises:
            UserError: The model or the CPU cannot be prepared.
        """
        runner.model.eval()
        optimize_for_inference(runner.model, dtype=self.dtype)

    def after_test(self, runner: Runner) -> None:
        """Make it plain again, since other hooks may exchange weights."""
        runner.model.train()
        runner.model.eval()
