"""What is said of an extension that is missing or does not fit."""

import re

import pytest
import torch

from mmssm.ops import native

BUILD = dict(torch='2.11.0', cuda='13.0', architectures=(), compiler='GCC')


@pytest.mark.parametrize(
    'running, cuda, message',
    [
        ('2.11.0+cu130', '13.0', ''),
        ('2.11.3', '13.2', ''),  # another patch release
        ('2.14.1+cu130', '13.0', r'built for torch 2.11.0, not 2.14.1\+cu130'),
        ('2.1.0', '13.0', 'built for torch 2.11.0, not 2.1.0'),
        ('2.11.0+cu128', '12.8', 'for CUDA 13.0, torch .* is for CUDA 12.8'),
        ('2.11.0+cpu', None, r'for CUDA 13.0, torch 2.11.0\+cpu has none'),
    ],
)
def test_extension_for_another_torch(monkeypatch, running, cuda, message):
    monkeypatch.setattr(torch, '__version__', running)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    monkeypatch.setattr(
        native, 'build_info', lambda: native.BuildInfo(**BUILD)
    )
    file = native.extension_path()
    if not file.is_file():
        pytest.skip('no extension')
    loaded = []
    monkeypatch.setattr(torch.ops, 'load_library', loaded.append)
    problem = native._load_extension()
    assert loaded == ([] if message else [file])
    assert re.search(message or '^$', problem)


def test_cpu_build_serves_every_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, 'cuda', None)
    build = native.BuildInfo(**{**BUILD, 'torch': torch.__version__})
    assert native._mismatch(build) != ''
    build = native.BuildInfo(
        **{**BUILD, 'torch': torch.__version__, 'cuda': ''}
    )
    assert native._mismatch(build) == ''


def test_build_info_is_that_of_this_torch():
    if not native.is_available():
        pytest.skip('no native op')
    found = native.build_info()
    assert torch.__version__.split('.')[:2] == found.torch.split('.')[:2]
    assert found.compiler
    assert bool(found.cuda) == native.has_kernels('cuda')
    assert bool(found.architectures) == native.has_kernels('cuda')


def test_missing_and_damaged_files(monkeypatch, tmp_path):
    path = tmp_path / '_ext.so'
    monkeypatch.setattr(native, 'extension_path', lambda: path)
    assert native.build_info() is None
    assert native._load_extension() == f'there is no {path}'
    for content in (
        b'',
        b'nothing of ours',
        b'mmssm-build{"torch": "2.11.0", "cu',
        b'mmssm-build{"torch": "2.11.0"}\0',
        b'mmssm-build{"torch": 1, "cuda": null, "architectures": 2}\0',
    ):
        path.write_bytes(content)
        assert native.build_info() is None
        assert native._load_extension().startswith(f'{path} is no extension')
    path.write_bytes(
        b'cut off mmssm-build{"torch": "%s", "cuda": 0, "architectures": "", '
        b'"compiler": "GCC"}\0' % torch.__version__.encode()
    )
    problem = native._load_extension()
    assert problem.startswith(f'{path} cannot be loaded: ')
    assert '\n' not in problem


def test_cuda_version_and_architectures(tmp_path):
    path = tmp_path / '_ext.so'
    path.write_bytes(
        b'\x7fELF mmssm-build{"torch": "2.11.0", "cuda": 12080, '
        b'"architectures": "7.5,9.0+PTX", "compiler": "GCC 12"}\0 more'
    )
    assert native.build_info(path) == native.BuildInfo(
        '2.11.0', '12.8', ('7.5', '9.0+PTX'), 'GCC 12'
    )


@pytest.mark.parametrize(
    'architecture, runs_on, not_on',
    [
        ('8.0', [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0)]),
        ('8.6', [(8, 6), (8, 9)], [(8, 0), (9, 0)]),
        ('9.0+PTX', [(9, 0), (10, 0), (12, 0)], [(8, 9)]),
        ('9.0a', [(9, 0)], [(10, 0), (8, 9)]),
        ('Hopper', [(9, 0)], []),  # PyTorch takes names, too
    ],
)
def test_where_an_architecture_runs(architecture, runs_on, not_on):
    for capability in runs_on:
        assert native._runs_on(capability, architecture)
    for capability in not_on:
        assert not native._runs_on(capability, architecture)


def test_gpu_that_the_extension_was_not_built_for(monkeypatch):
    build = native.BuildInfo('2.11.0', '13.0', ('7.5', '8.0'), 'GCC 12')
    monkeypatch.setattr(native, 'build_info', lambda: build)
    monkeypatch.setattr(
        torch.cuda, 'get_device_capability', lambda index: (9, 0)
    )
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda index: 'H100')
    assert native.missing_architecture() == (
        'H100 has compute capability 9.0, the extension holds kernels for '
        '7.5, 8.0 only: build it again with TORCH_CUDA_ARCH_LIST=9.0'
    )
    monkeypatch.setattr(
        torch.cuda, 'get_device_capability', lambda index: (8, 6)
    )
    assert native.missing_architecture() == ''
