import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from mmssm.checkpoint import load_file

TOOLS = Path(__file__).parents[2] / 'tools'
TOOL = TOOLS / 'model_converters' / 'upstream_to_mmssm.py'


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the tool in this process; returns status, stdout and stderr."""
    spec = importlib.util.spec_from_file_location('upstream_to_mmssm', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def convert(*arguments):
        monkeypatch.setattr(sys, 'argv', [TOOL.name, *map(str, arguments)])
        try:
            tool.run_tool(tool.main)
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return (status, *capsys.readouterr())

    return convert


@pytest.fixture
def released(tmp_path, golden):
    path = tmp_path / 'vssm.pth'
    torch.save(dict(model=golden('vmamba_tiny_s1l8_cls').state_dict()), path)
    return path


def test_converts_and_reports(convert, released, tmp_path):
    target = tmp_path / 'new folder' / 'mmssm.pth'
    status, out, _ = convert(released, target)
    assert status == 0
    assert out.splitlines() == [
        'family: vmamba',
        'arch: tiny-s1l8',
        'container: model',
        'tensors: 276 (backbone, head)',
        f'written: {target}',
    ]
    written = load_file(target)
    assert sorted(written) == ['meta', 'state_dict']
    assert written['meta']['mmssm']['source'] == 'vssm.pth'
    original = load_file(released)['model']
    assert torch.equal(
        written['state_dict']['head.fc.weight'],
        original['classifier.head.weight'],
    )


def test_arch_that_can_be_pasted(convert, released, tmp_path):
    content = load_file(released)
    for key in list(content['model']):
        if key.startswith('layers.2.blocks.7.'):
            del content['model'][key]
    torch.save(content, released)
    _, out, _ = convert(released, tmp_path / 'out.pth')
    assert (
        'arch=dict(embed_dims=96, depths=[2, 2, 7, 2], d_state=1, '
        'ssm_ratio=1.0, '
    ) in out


def test_original_is_never_overwritten(convert, released, tmp_path):
    before = released.read_bytes()
    link = tmp_path / 'link.pth'
    link.symlink_to(released)
    for target in (released, link):
        status, _, error = convert(released, target)
        assert status == 2 and 'is the original itself' in error
    assert released.read_bytes() == before


@pytest.mark.parametrize(
    'content, cause',
    [
        (dict(state_dict={'conv.weight': torch.ones(1)}), 'not an original'),
        (
            dict(
                model={
                    'layers.0.blocks.0.op.x_proj_weight': torch.ones(4, 8, 96)
                }
            ),
            "'patch_embed.0.weight' is missing",
        ),
        (dict(model={}, config=Path('x')), '--unsafe-load'),
    ],
)
def test_one_line_errors(convert, tmp_path, content, cause):
    torch.save(content, tmp_path / 'in.pth')
    status, _, error = convert(tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert status == 2
    assert error.startswith('upstream_to_mmssm.py: error: ')
    assert cause in error and error.count('\n') == 1
    assert not (tmp_path / 'out.pth').exists()
