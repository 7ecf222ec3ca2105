"""A runner that works beside other libraries' runners, and on CPUs."""

import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import ConfigDict
from mmengine.dist import master_only
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmssm.engine.optimizers.cpu_amp_optim_wrapper import in_cpu_amp
from mmssm.utils import ConfigError, atomic_write
from mmssm.utils.config import in_one_process, leaf_datasets, type_name
from mmssm.utils.errors import warn

from .on_cpu import wrap_on_cpu

# What a dataset of mmengine says that finds nothing.
_EMPTY = 'need at least one array to concatenate'


def build_dataset(dataset: ConfigDict) -> Dataset:
    """Build a dataset in the current scope, and see that it has images.

    Args:
        dataset (ConfigDict): The config of the dataset.

    Raises:
        ConfigError: It has no image.
    """
    with _no_empty_dataset(dataset):
        built = DATASETS.build(dataset)
        if not len(built):
            raise ValueError(_EMPTY)
    return built


@contextmanager
def _no_empty_dataset(dataset: ConfigDict) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if str(error) != _EMPTY:
            raise
        leaf, _ = next(leaf_datasets(dataset))
        raise ConfigError(
            f'{type_name(leaf["type"])} finds no image with data_root='
            f'{leaf.get("data_root")!r}, data_prefix='
            f'{leaf.get("data_prefix")!r} and ann_file='
            f'{leaf.get("ann_file")!r}; check these paths, the suffixes of '
            'the files (capitals count) and filter_cfg'
        ) from error


class ScopedRunner(Runner):
    """mmengine's Runner, which always uses its own default scope.

    mmengine looks up names such as ``Resize`` in the default scope, which is
    that of the runner built last. Data loaders and evaluators are built when
    they are first used, so a detector's runner finds no ``PackDetInputs`` if a
    segmentor's runner was built after it. This runner sets its own scope
    whenever it runs.

    Where PyTorch finds no GPU, it does in float32 or bfloat16, and with batch
    norms of one process, what the config asks for of GPUs. Its config stays
    as it was given, and so does the copy in the work directory, which can be
    taken to GPUs.
    """

    def train(self) -> nn.Module:
        """Train; see mmengine's Runner."""
        with self._own_scope():
            return super().train()

    def val(self) -> dict:
        """Validate; see mmengine's Runner."""
        with self._own_scope():
            return super().val()

    def test(self) -> dict:
        """Test; see mmengine's Runner."""
        with self._own_scope():
            return super().test()

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model; see mmengine's Runner."""
        if isinstance(model, dict) and not self.distributed:
            model = in_one_process(model)
        return super().build_model(model)

    def wrap_model(
        self, model_wrapper_cfg: dict | None, model: nn.Module
    ) -> nn.Module:
        """Wrap the model for several processes; see mmengine's Runner."""
        if (
            not self.distributed
            or torch.cuda.is_available()
            or is_model_wrapper(model)
        ):
            return super().wrap_model(model_wrapper_cfg, model)
        return wrap_on_cpu(self.cfg, model)

    def build_optim_wrapper(self, optim_wrapper: dict) -> OptimWrapper:
        """Build the optimizer; see mmengine's Runner."""
        if not torch.cuda.is_available() and isinstance(optim_wrapper, dict):
            scope = self.cfg.get('default_scope')
            given = optim_wrapper
            optim_wrapper = in_cpu_amp(given, scope)
            if optim_wrapper is not given:
                warn(
                    'mixed precision on a CPU: PyTorch finds no GPU; using '
                    'bfloat16'
                )
        return super().build_optim_wrapper(optim_wrapper)

    @master_only
    def dump_config(self) -> None:
        """Write the config to the work directory.

        A config that was read from there is not replaced.
        """
        given = self.cfg.filename
        name = osp.basename(given) if given else f'{self.timestamp}.py'
        path = osp.join(self.work_dir, name)
        if given and osp.exists(path) and osp.samefile(given, path):
            return
        with atomic_write(path) as file:
            file.write(self.cfg.dump().encode())

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict,
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a data loader; see mmengine's Runner.

        Raises:
            ConfigError: The dataset has no image.
        """
        given = dataloader if isinstance(dataloader, dict) else {}
        dataset = given.get('dataset')
        if not isinstance(dataset, dict):
            return Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        with _no_empty_dataset(dataset):
            return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    @contextmanager
    def _own_scope(self) -> Iterator[None]:
        scope = self.cfg.get('default_scope', 'mmengine')
        with DefaultScope.overwrite_default_scope(scope):
            yield
