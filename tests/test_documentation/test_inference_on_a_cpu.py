"""docs/inference_on_a_cpu.md's examples run."""

import re
from pathlib import Path

import pytest
import torch

import mmssm

PAGE = Path(__file__).parents[2] / 'docs' / 'inference_on_a_cpu.md'
ARCH = dict(embed_dims=8, depths=(1, 1, 1, 1))


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='needs oneDNN'
)
def test_examples(monkeypatch):
    backbone = mmssm.VMamba
    monkeypatch.setattr(mmssm, 'VMamba', lambda _: backbone(ARCH))
    blocks = re.findall(
        r'^```python\n(.*?)^```$', PAGE.read_text(), re.M | re.S
    )
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(block, names)
    assert 'PackedFFN' in str(names['model'])
    assert names['maps'][0].shape == (1, 64, 7, 7)
