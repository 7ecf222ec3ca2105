"""A runner that works beside runners of other libraries."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmssm.utils import ConfigError
from mmssm.utils.config import leaf_datasets, type_name

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
