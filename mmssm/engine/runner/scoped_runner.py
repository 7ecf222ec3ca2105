"""A runner that works beside runners of other libraries."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmssm.utils import ConfigError
from mmssm.utils.config import leaf_datasets, type_name

# What a dataset of mmengine says that finds nothing.
_EMPTY = 'need at least one array to concatenate'


@contextmanager
def no_empty_dataset(dataset: dict) -> Iterator[None]:
    """Say it plainly when a dataset that is built finds no image.

    Args:
        dataset (dict): The config of the dataset, for the message.

    Raises:
        ConfigError: It has no image.
    """
    try:
        yield
    except ValueError as error:
        if str(error) != _EMPTY:
            raise
        raise ConfigError(
            f'{type_name(dataset["type"])} finds no image with data_root='
            f'{dataset.get("data_root")!r}, data_prefix='
            f'{dataset.get("data_prefix")!r} and ann_file='
            f'{dataset.get("ann_file")!r}; check these paths, the suffixes of '
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
        leaf, _ = next(leaf_datasets(dataset))
        with no_empty_dataset(leaf):
            return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    @contextmanager
    def _own_scope(self) -> Iterator[None]:
        scope = self.cfg.get('default_scope', 'mmengine')
        with DefaultScope.overwrite_default_scope(scope):
            yield
