import pytest
import torch

from mmssm.utils import ConfigError
from mmssm.utils.device import find_device


@pytest.fixture
def gpus(monkeypatch):
    """Set how many GPUs PyTorch finds."""

    def set_count(count):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: count > 0)

    return set_count


@pytest.mark.parametrize('count, expected', [(0, 'cpu'), (2, 'cuda:0')])
def test_default(gpus, count, expected):
    gpus(count)
    assert find_device() == torch.device(expected)
    assert find_device('cpu') == torch.device('cpu')


def test_named_gpu(gpus):
    gpus(2)
    for name in ('cuda', 'cuda:1', torch.device('cuda:1')):
        assert find_device(name) == torch.device(name)
    with pytest.raises(ConfigError, match='cuda:2: PyTorch finds 2 GPUs'):
        find_device('cuda:2')


def test_gpu_on_a_machine_without(gpus):
    gpus(0)
    with pytest.raises(ConfigError, match='finds 0 GPUs; give cpu'):
        find_device('cuda')


@pytest.mark.parametrize('name', ['mps', 'meta', 'xpu:1'])
def test_devices_without_ops(name):
    with pytest.raises(ConfigError, match=f'--device {name}: models run on'):
        find_device(name)


@pytest.mark.parametrize('name', ['gpu', 'cuda:x', ''])
def test_names_of_no_device(name):
    with pytest.raises(ConfigError, match='no such device'):
        find_device(name)
