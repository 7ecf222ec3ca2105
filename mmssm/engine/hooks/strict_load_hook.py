"""Stop a test whose checkpoint does not fit the model exactly."""

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmssm.checkpoint.strict_load import check_fits


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Raise an error before loading a checkpoint that does not fit exactly.

    mmengine loads the weights that fit and logs the others, so that a test of
    a wrong checkpoint runs to the end and reports a mAP near zero.
    """

    priority = 'VERY_LOW'  # after EMAHook has put its weights in place

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare keys and shapes, before the runner loads the weights."""
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        check_fits(model, checkpoint)
