"""Devices to test on, small runs, and golden cases.

A golden case (``data/golden/<name>.npz``) tells what an original
implementation computes. It lists a model's state-dict keys and shapes and
holds its outputs for one input, computed on a CPU in float32 with the
recurrence in float64. Weights and input are not stored; they are drawn from
each key's name by the rules below, so a case stays small.
"""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.visualization import Visualizer

from mmssm.datasets.mini import WRITERS, build_mini
from mmssm.utils.config import complete_model, load_config

os.environ.setdefault('OMP_NUM_THREADS', '2')  # of child processes
# cuBLAS asks for it where deterministic algorithms are wanted.
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
torch.set_num_threads(2)
# Time limits on examples would fail a test for a busy machine.
settings.register_profile('no deadline', deadline=None)
settings.load_profile('no deadline')
GOLDEN = Path(__file__).parent / 'data' / 'golden'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the CUDA build, which takes minutes, beside other tests."""
    items.sort(key=lambda item: 'test_cuda_build' not in item.nodeid)


def _draw(key: str, shape: tuple, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    z = rng.standard_normal(shape, dtype=np.float32)
    name = key.rsplit('.', 1)[-1]
    if name in ('A_logs', 'A_log', 'A_b_log') or '.A_log' in key:
        if len(shape) != 2:
            return 0.1 * z
        return np.log(np.arange(1, shape[1] + 1, dtype='f4')) + 0.1 * z
    if name in ('Ds', 'D', 'D_b') or name.startswith('D_'):
        return 1 + 0.1 * z
    step_bias = name == 'bias' and 'dt_proj' in key
    if name in ('dt_projs_bias', 'dt_bias') or step_bias:
        return -3 + 0.5 * z
    if name == 'running_var':
        return np.exp(0.2 * z)
    if name == 'num_batches_tracked':
        return np.zeros(shape, dtype=np.int64)
    if name == 'alpha' or (name == 'weight' and len(shape) == 1):
        return 1 + 0.1 * z
    if len(shape) <= 1 or name in ('running_mean', 'pos_embed', 'cls_token'):
        return 0.1 * z
    packed = name in ('x_proj_weight', 'dt_projs_weight')
    fan_in = shape[-1] if packed else int(np.prod(shape[1:]))
    return z / np.sqrt(np.float32(fan_in))


class GoldenCase:
    """One original model's weights, input and outputs."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f'{name}.npz', allow_pickle=False) as file:
            self.meta = json.loads(str(file['meta']))
            self.outputs = {
                k[4:]: file[k] for k in file.files if k.startswith('out.')
            }
            self._fixed = {
                k[4:]: file[k] for k in file.files if k.startswith('fix.')
            }

    def state_dict(self) -> dict:
        """{key: tensor}, as the original's released file holds it."""
        seed = self.meta['seed']
        return {
            key: torch.from_numpy(
                np.array(
                    self._fixed[key]
                    if key in self._fixed
                    else _draw(key, tuple(shape), seed)
                )
            )
            for key, shape in self.meta['keys']
        }

    def input(self) -> torch.Tensor:
        """Images (B, 3, H, W)."""
        rng = np.random.default_rng([self.meta['seed'], zlib.crc32(b'input')])
        shape = self.meta['input_shape']
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

    def error(self, name: str, got: torch.Tensor) -> float:
        """Largest difference, relative to the largest wanted value."""
        want = self.outputs[name]
        assert tuple(got.shape) == want.shape
        difference = np.abs(got.detach().cpu().numpy() - want).max()
        return float(difference / max(1.0, np.abs(want).max()))


def _why_no_gpu() -> str:
    """Why no op can run on a GPU here, one line; '' if it can."""
    from mmssm.ops import native

    if not torch.cuda.is_available():
        return 'PyTorch finds no GPU'
    if not native.has_kernels('cuda'):
        return native.problem() or 'the extension has no CUDA kernels'
    return native.missing_architecture(torch.cuda.current_device())


@pytest.fixture(
    scope='session',
    params=['cpu', pytest.param('cuda', marks=pytest.mark.cuda)],
)
def device(request):
    """Where a test runs: a CPU, and a GPU where there is one.

    What it compares with is computed on the CPU.
    """
    if request.param == 'cuda':
        reason = _why_no_gpu()
        if reason:
            pytest.skip(reason)
        # Or float32 convolutions have the digits of float16.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(request.param)


@pytest.fixture
def golden():
    """Load a golden case by name."""
    return GoldenCase


TOY = Path(__file__).parent / 'data' / 'toy'


@pytest.fixture
def toy_config(tmp_path, monkeypatch):
    """The toy task's config; the work happens in a folder of its own."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.chdir(tmp_path)
    return str(TOY / 'config.py')


# The scope, config and main metric of each of the three tasks.
MINI_TASKS = [
    ('mmdet', 'mask-rcnn_vmamba-mini_mini-coco', 'coco/segm_mAP'),
    ('mmseg', 'vmamba-mini_upernet_mini-ade20k', 'mIoU'),
    ('mmpretrain', 'vmamba-mini_mini-in1k', 'accuracy/top1'),
]


@pytest.fixture(scope='session')
def mini_tasks(tmp_path_factory):
    """The tasks, and a folder with the mini sets that their configs read."""
    root = tmp_path_factory.mktemp('mini')
    for name in WRITERS:
        build_mini(name, root / 'data' / 'mini' / name)
    configs = Path(__file__).parents[1] / 'configs' / 'mini'
    tasks = [
        (scope, str(configs / f'{name}.py'), metric)
        for scope, name, metric in MINI_TASKS
    ]
    return root, tasks


@pytest.fixture(scope='session')
def untrained(mini_tasks, tmp_path_factory):
    """{scope: (config, checkpoint)} of the tasks' models, not trained."""
    folder = tmp_path_factory.mktemp('untrained')
    found = {}
    for scope, config, _ in mini_tasks[1]:
        cfg = load_config(config)
        with DefaultScope.overwrite_default_scope(scope):
            model = MODELS.build(complete_model(cfg))
        checkpoint = folder / f'{scope}.pth'
        torch.save(dict(state_dict=model.state_dict()), checkpoint)
        found[scope] = config, str(checkpoint)
    return found


@pytest.fixture(autouse=True)
def no_names_in_common():
    """Forget mmengine's loggers and the like.

    Two runs that start within one second have one name and would share them,
    and with them the first one's log file.
    """
    yield
    for manager in (MMLogger, MessageHub, Visualizer, DefaultScope):
        manager._instance_dict.clear()
