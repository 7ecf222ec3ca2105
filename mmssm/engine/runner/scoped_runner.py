"""A runner that works beside runners of other libraries."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn


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

    @contextmanager
    def _own_scope(self) -> Iterator[None]:
        scope = self.cfg.get('default_scope', 'mmengine')
        with DefaultScope.overwrite_default_scope(scope):
            yield
