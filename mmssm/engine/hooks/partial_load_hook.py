"""Tell what a training takes from the file of ``load_from``."""

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from mmssm.backbones.base import SSMBackbone
from mmssm.backbones.fitting import SMALLEST_SHARE, compare
from mmssm.utils import CheckpointError


@HOOKS.register_module()
class PartialLoadHook(Hook):
    """Log what is loaded from ``load_from`` and what is left out.

    mmengine loads the tensors whose names and shapes fit. This hook names the
    others, a whole module as one entry, and refuses a file that fills less
    than a tenth of the model. A run that is resumed is left alone.
    ``tools/train.py`` registers it; in a config for another tool, write
    ``custom_hooks=[dict(type='mmssm.engine.PartialLoadHook')]``.
    """

    priority = 'VERY_HIGH'  # before EMAHook loads a copy of the weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare and log, before the runner loads the weights.

        In the checkpoint, tensors of mmssm's backbones are fitted to other
        input channels and image sizes.

        Raises:
            CheckpointError: Less than a tenth of the tensors fit.
        """
        if runner._resume:
            return
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        state = checkpoint.get('state_dict', checkpoint)
        keys = {
            key.removeprefix('module.'): key
            for key, value in state.items()
            if isinstance(value, Tensor)
        }
        given = {name: state[key] for name, key in keys.items()}
        for place, module in model.named_modules():
            if isinstance(module, SSMBackbone) and place:
                given.update(_fitted(module, f'{place}.', given))
        fit = compare(model.state_dict(), given)
        if fit.share() < SMALLEST_SHARE:
            raise CheckpointError(
                f'load_from: only {len(fit.taken)} of the {len(fit.own)} '
                f'tensors of the model are in {runner._load_from} (its first '
                f'key: {next(iter(state), None)!r}; one of the '
                f"model: {next(iter(fit.own), None)!r}). For a backbone's "
                'weights, set model.backbone.init_cfg instead'
            )
        state.update({key: given[name] for name, key in keys.items()})
        runner.logger.info(f'load_from: {runner._load_from}: {fit}')


def _fitted(
    backbone: SSMBackbone, prefix: str, given: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The backbone's tensors of a file, fitted to it."""
    own = {
        key[len(prefix) :]: value
        for key, value in given.items()
        if key.startswith(prefix)
    }
    fitted = backbone.fit_weights(own)
    return {prefix + key: value for key, value in fitted.items()}
