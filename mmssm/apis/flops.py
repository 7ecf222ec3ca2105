"""Parameters and FLOPs of a config's model."""

from dataclasses import dataclass

import torch
from mmengine.analysis import parameter_count
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from mmssm.analysis.flops import count_model

from .model_checks import check_channels
from .tasks import find_task


@dataclass(frozen=True)
class Complexity:
    """The cost of a forward pass for one image.

    Attributes:
        params (int): Number of parameters, including heads used only in
            training.
        flops (int): FLOPs, counted as in the papers.
        macs (int): Multiply-accumulate operations only.
        flops_by_operator (dict[str, int]): The parts of ``flops``, the
            largest first.
        shape (tuple[int, int]): Height and width of the image.
        channels (int): Channels of the image; 6 for a pair of images.
        proposals (int | None): Number of regions given to the box head of a
            two-stage detector, on which its cost depends. None for others.
    """

    params: int
    flops: int
    macs: int
    flops_by_operator: dict[str, int]
    shape: tuple[int, int]
    channels: int = 3
    proposals: int | None = None


def count_config(
    cfg: Config, shape: tuple[int, int] | None = None
) -> Complexity:
    """Count the model of a classification, detection or segmentation config.

    The model is built with random weights; no checkpoint is loaded.

    Args:
        cfg (Config): A config with ``model`` and ``default_scope``, whose
            ``custom_imports`` are imported.
        shape (tuple[int, int], optional): Height and width of the image.
            Defaults to the papers' size for the task, see
            :meth:`mmssm.apis.tasks.Task.input_shape`.

    Returns:
        Complexity: The counts for one image.

    Raises:
        ConfigError: The config is for none of the three libraries, or a part
            of its model does not fit its backbone.
    """
    task = find_task(cfg, 'counting FLOPs')
    shape = shape or task.input_shape(cfg)
    preprocessor = cfg.model.get('data_preprocessor') or {}
    channels = len(preprocessor.get('mean') or range(3))
    # The proposals depend on the random weights; keep them the same each time.
    with (
        torch.random.fork_rng(devices=[]),
        DefaultScope.overwrite_default_scope(cfg.default_scope),
    ):
        torch.manual_seed(0)
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
        check_channels(cfg, model)
        regions = task.prepare_count(model, shape)
        image = torch.randn(1, channels, *shape)
        flops, macs, by_operator = count_model(model, (image,))
    return Complexity(
        params=parameter_count(model)[''],
        flops=flops,
        macs=macs,
        flops_by_operator=by_operator,
        shape=shape,
        channels=channels,
        proposals=sum(regions) if regions else None,
    )
