"""docs/fine_tune.md's examples take what its table says."""

import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from mmssm.engine import PartialLoadHook
from mmssm.utils.config import complete_model, load_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'fine_tune.md').read_text()
MINI = ROOT / 'configs' / 'mini'
CLASSIFIER = MINI / 'vmamba-mini_mini-in1k.py'
DETECTOR = MINI / 'mask-rcnn_vmamba-mini_mini-coco.py'
SEGMENTOR = MINI / 'vmamba-mini_upernet_mini-ade20k.py'
VIM = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='Vim', arch=dict(embed_dims=32, depth=1), img_size=64
    ),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=32),
)
"""


def section(title):
    """The blocks of Python of a section."""
    text = re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', PAGE, re.M | re.S)[1]
    return re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S)


def build(config):
    cfg = load_config(str(config))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return cfg, MODELS.build(complete_model(cfg))


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a training from a base config and an example.

    Returns the model, the file's tensors and the log's lists. Files have the
    names of the examples; their values are drawn.
    """
    monkeypatch.chdir(tmp_path)
    Path('vim.py').write_text(VIM)
    files = {
        'classifier.pth': CLASSIFIER,
        'detector.pth': DETECTOR,
        'vim.pth': 'vim.py',
    }
    torch.manual_seed(0)
    lines = []

    def run(base, example):
        for name, config in files.items():
            if name in example:
                state = build(config)[1].state_dict()
                state = {
                    k: torch.rand_like(v) if v.is_floating_point() else v
                    for k, v in state.items()
                }
                torch.save(dict(state_dict=state), name)
        base = Path(base).absolute()
        Path('example.py').write_text(f'_base_ = {str(base)!r}\n{example}')
        cfg, model = build('example.py')
        runner = Runner(model, 'out', load_from=cfg.get('load_from'), cfg=cfg)
        assert isinstance(cfg.get('custom_hooks', []), list)
        for hook in cfg.get('custom_hooks') or [PartialLoadHook()]:
            runner.register_hook(hook)
        logger = MMLogger.get_current_instance()
        logger.handlers[0].emit = lambda r: lines.append(r.getMessage())
        model.init_weights()
        runner.load_or_resume()
        lists = [line for line in lines if 'loaded ' in line]
        return model, state, lists

    return run


def taken(model, state):
    """Names of the tensors that the model has from the file."""
    return {
        name
        for name, value in model.state_dict().items()
        if name in state
        and value.shape == state[name].shape
        and torch.equal(value, state[name])
    }


def under(model, *parts):
    return {name for name in model.state_dict() if name.split('.')[0] in parts}


@pytest.mark.parametrize('base', [CLASSIFIER, DETECTOR, SEGMENTOR])
def test_a_backbone_from_any_file(start, base):
    (example,) = section('A backbone from any file')
    model, state, (line,) = start(base, example)
    fresh = {k for k in under(model, 'backbone') if re.search('norm[0-2]', k)}
    fresh = {k for k in fresh if k.startswith('backbone.norm')}
    assert taken(model, state) == under(model, 'backbone') - fresh
    assert len(fresh) == (0 if base == CLASSIFIER else 6)
    assert 'loaded 184 of ' in line


def test_a_model_of_other_classes(start):
    (example,) = section('A model of other classes')
    model, state, lists = start(CLASSIFIER, example)
    assert model.head.fc.out_features == 7
    assert taken(model, state) == under(model, 'backbone')
    assert 'other shape: head.fc.weight (10, 256) instead of' in lists[-1]


@pytest.mark.parametrize('number', [0, 1])
def test_another_detector(start, number):
    example = section('Another detector')[number]
    model, state, lists = start(DETECTOR, example)
    # This one's boxes and masks do not depend on the class.
    lost = {f'roi_head.bbox_head.fc_cls.{end}' for end in ('weight', 'bias')}
    whole = set(model.state_dict())
    assert taken(model, state) == (whole if number else whole - lost)
    assert lists[-1].startswith('load_from: detector.pth: loaded ')


def test_images_of_other_channels(start):
    (example,) = section('Images of other channels')
    model, state, _ = start(CLASSIFIER, example)
    assert len(model.data_preprocessor.mean) == 6
    stem = 'backbone.stem.conv1.weight'
    assert taken(model, state) == under(model, 'backbone') - {stem}
    mean = state[stem].mean(1, keepdim=True).expand(-1, 6, -1, -1)
    torch.testing.assert_close(model.state_dict()[stem], mean * 3 / 6)


def test_images_of_another_size(start):
    (example,) = section('Images of another size')
    model, state, _ = start('vim.py', example)
    table = 'backbone.pos_embed'
    assert taken(model, state) == under(model, 'backbone') - {table}
    assert state[table].shape[1] == 4 * 4 + 1
    assert model.state_dict()[table].shape[1] == 6 * 6 + 1


def test_more_blocks(start):
    example = section('A backbone that differs')[0]
    model, state, lists = start(CLASSIFIER, example)
    added = {
        k for k in model.state_dict() if k.startswith('backbone.stages.2.b')
    } - set(state)
    assert taken(model, state) == under(model, 'backbone') - added
    quoted = re.search('^VMamba: old.pth: (.*)$', PAGE, re.M)[1]
    assert lists == [f'VMamba: classifier.pth: {quoted}']


def test_a_backbone_of_ones_own(start, tmp_path, monkeypatch):
    _, module, example = section('A backbone that differs')
    (tmp_path / 'ones_own.py').write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    imports = "custom_imports = dict(imports=['mmssm', 'ones_own'])\n"
    try:
        model, state, lists = start(CLASSIFIER, imports + example)
    finally:
        MODELS.module_dict.pop('VMambaWithAttention', None)
        sys.modules.pop('ones_own', None)
    own = {k for k in model.state_dict() if '.attention.' in k}
    assert len(own) == 4
    assert taken(model, state) == under(model, 'backbone') - own
    assert 'not in the file: attention.* (4);' in lists[0]
    (out,) = model.backbone(torch.rand(2, 3, 64, 96))
    assert out.shape == (2, 256, 2, 3) and out.isfinite().all()


def test_every_example_is_tested():
    source = Path(__file__).read_text()
    titles = re.findall('^## (.*)$', PAGE, re.M)
    assert len(titles) == 7
    for title in titles:
        assert not section(title) or f"section('{title}')" in source
    # The table's links lead to the sections.
    anchors = re.findall(r'\]\(#(.*?)\)', PAGE)
    assert len(anchors) == 6
    for anchor in anchors:
        assert anchor in [t.lower().replace(' ', '-') for t in titles]
