"""Every family's archs and arguments; files load whole or not at all."""

from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit
from torch import nn

import mmssm
from mmssm.backbones import (
    SpatialMamba,
    VMamba,
)

ROOT = Path(__file__).parents[2]
MINI = dict(embed_dims=16, depths=(1, 1, 1, 1))
FAMILIES = [
    getattr(mmssm, name) for name in mmssm.__all__ if name[0].isupper()
]
ARCHS = [
    (family, arch) for family in FAMILIES for arch in family.arch_settings
]
CLASSIFIERS = {
    entry['Config']: entry['Metadata']['Parameters']
    for path in sorted(ROOT.glob('configs/*/metafile.yml'))
    for entry in yaml.safe_load(path.read_text())['Models']
    if entry['Config'].endswith('_in1k.py')
}


@pytest.mark.parametrize('family, arch', ARCHS)
def test_every_arch_can_be_built(family, arch):
    """Its row has the fields of every other one."""
    settings = family.arch_settings[arch]
    assert set(settings) == set(next(iter(family.arch_settings.values())))
    with torch.device('meta'):
        model = family(arch)
    assert model.arch_name == arch and model.arch == settings
    assert model.drop_path_rate == settings['drop_path_rate']


@pytest.mark.parametrize('family', FAMILIES)
def test_what_a_dict_leaves_out_is_tinys_wherever_its_row_stands(family):
    rows = family.arch_settings
    tiny = rows['tiny-s1l8' if family is VMamba else 'tiny']
    assert family.parse_arch({}) == (None, tiny)
    changed = dict(drop_path_rate=0.77)
    assert family.parse_arch(changed) == (None, {**tiny, **changed})
    for name, target in family.arch_aliases.items():
        assert family.parse_arch(name) == (target, rows[target])
    family.parse_arch('tiny')[1].clear()  # a copy
    assert family.parse_arch('tiny')[1]


@pytest.mark.parametrize('config', CLASSIFIERS)
def test_a_classifier_has_the_metafiles_parameters(config):
    cfg = Config.fromfile(ROOT / config, import_custom_modules=False).model
    options = dict(cfg.backbone)
    with torch.device('meta'):
        model = getattr(mmssm, options.pop('type'))(**options)
    parameters = sum(p.numel() for p in model.parameters())
    width = cfg.head.in_channels
    if 'mid_channels' in cfg.head:  # a convolution and a batch norm
        parameters += (width + 2) * cfg.head.mid_channels
        width = cfg.head.mid_channels
    parameters += (width + 1) * cfg.head.num_classes
    assert parameters == CLASSIFIERS[config]


def test_subclass_may_pass_arguments_on():
    class Extended(VMamba):
        def __init__(self, extra=1, **kwargs):
            super().__init__(**kwargs)

    assert Extended(extra=2, arch=MINI).arch_name is None


@pytest.fixture
def classifier_file(tmp_path):
    """A file as classification training writes it: backbone and head."""
    torch.manual_seed(1)
    model = VMamba(MINI)
    weights = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    weights['head.fc.weight'] = torch.zeros(10, 128)
    path = tmp_path / 'classifier.pth'
    torch.save(dict(meta=dict(), state_dict=weights), path)
    return path, model


def pretrained(path, **kwargs):
    arch = kwargs.pop('arch', MINI)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **kwargs)
    return VMamba(arch, out_indices=(0, 1, 2, 3), init_cfg=init_cfg)


@pytest.mark.parametrize('prefix', [{}, dict(prefix='backbone.')])
def test_classifier_feeds_a_detector(classifier_file, prefix):
    path, source = classifier_file
    model = pretrained(path, **prefix)
    model.init_weights()
    own = model.state_dict()
    for key, value in source.state_dict().items():
        assert torch.equal(own[key], value), key
    assert (model.norm0.weight == 1).all()  # not in the file: fresh


def test_bare_backbone_file(tmp_path, classifier_file):
    _, source = classifier_file
    path = tmp_path / 'bare.pth'
    torch.save(source.state_dict(), path)
    model = pretrained(path)
    model.init_weights()
    assert torch.equal(
        model.stages[0].blocks[0].mixer.x_proj_weight,
        source.stages[0].blocks[0].mixer.x_proj_weight,
    )


@pytest.mark.parametrize(
    'name, backbone, key, own_key',
    [
        (
            'vmamba_tiny_s1l8_cls',
            VMamba,
            'layers.2.blocks.3.op.dt_projs_weight',
            'stages.2.blocks.3.mixer.dt_projs_weight',
        ),
        (
            'spatial_mamba_tiny_cls',
            SpatialMamba,
            'layers.2.blocks.3.self_attention.state_fusion.alpha',
            'stages.2.blocks.3.mixer.fusion_alpha',
        ),
    ],
)
def test_original_file_loads_directly(
    tmp_path, golden, name, backbone, key, own_key
):
    weights = golden(name).state_dict()
    path = tmp_path / 'ckpt_epoch_264.pth'
    torch.save(dict(model=weights, optimizer={}, epoch=264), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = backbone('tiny', out_indices=(0, 3), init_cfg=init_cfg)
    model.init_weights()
    own = model.state_dict()
    assert torch.equal(own[own_key], weights[key])
    assert (own['norm0.weight'] == 1).all()  # not in the file: fresh


@pytest.mark.parametrize(
    'arch, message',
    [
        (dict(MINI, embed_dims=32), 'other shapes: '),
        (dict(MINI, depths=(1, 1, 2, 1)), 'missing keys: .*stages.2.blocks.1'),
        (dict(MINI, depths=(1, 1)), 'unknown keys: .*stages.2.downsample'),
    ],
)
def test_another_arch_is_refused(classifier_file, arch, message):
    path, _ = classifier_file
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = VMamba(arch, out_indices=(0,), init_cfg=init_cfg)
    before = model.stem.conv1.weight.clone()
    with pytest.raises(RuntimeError, match=message) as caught:
        model.init_weights()
    assert '\n' not in str(caught.value) and 'Set arch' in str(caught.value)
    assert torch.equal(model.stem.conv1.weight, before)


def test_refusal_names_the_arch_the_file_holds(tmp_path, golden):
    path = tmp_path / 'tiny.pth'
    torch.save({'model': golden('vmamba_tiny_s2l5_cls').state_dict()}, path)
    model = VMamba(
        'tiny-s1l8', init_cfg=dict(type='Pretrained', checkpoint=str(path))
    )
    with pytest.raises(RuntimeError, match="holds arch 'tiny-s2l5'"):
        model.init_weights()


def test_list_of_init_cfg(classifier_file):
    """Pretrained in a list is as strict, and comes after the others."""
    path, source = classifier_file
    constant = dict(type='Constant', layer='LayerNorm', val=3.0)
    cfg = dict(type='Pretrained', checkpoint=str(path))
    model = VMamba(MINI, out_indices=(0, 3), init_cfg=[cfg, constant])
    model.init_weights()
    assert torch.equal(model.norm3.weight, source.norm3.weight)
    assert (model.norm0.weight == 3).all()
    other = VMamba(dict(MINI, embed_dims=32), init_cfg=[cfg])
    with pytest.raises(RuntimeError, match='other shapes'):
        other.init_weights()


@pytest.mark.parametrize(
    'content, cfg, message',
    [
        (torch.zeros(3), dict(), 'holds no weights by name'),
        ({'a': 'text'}, dict(), 'holds no weights by name'),
        ({'a': torch.zeros(1)}, dict(), 'unknown keys: 1'),
        (
            {'a': torch.zeros(1)},
            dict(prefix='b'),
            "no keys that start with 'b",
        ),
    ],
)
def test_files_without_a_backbone(tmp_path, content, cfg, message):
    path = tmp_path / 'odd.pth'
    torch.save(content, path)
    with pytest.raises(RuntimeError, match=message):
        pretrained(path, **cfg).init_weights()


def test_misspelled_init_cfg():
    cfg = dict(type='Pretrained', checkpont='a.pth')
    with pytest.raises(ValueError, match="takes .* mean 'checkpoint'?"):
        VMamba(MINI, init_cfg=cfg).init_weights()
    cfg = dict(type='Pretrained', checkpoint='a.pth', stict=False)
    with pytest.raises(ValueError, match="takes .* mean 'strict'?"):
        VMamba(MINI, init_cfg=cfg).init_weights()
    for cfg in ('a.pth', dict(checkpoint='a.pth')):
        with pytest.raises(ValueError, match='a.pth.*; for a file write'):
            VMamba(MINI, init_cfg=cfg).init_weights()


@pytest.mark.parametrize(
    'kind',
    [PretrainedInit, 'mmengine.Pretrained', 'mmengine.model.PretrainedInit'],
)
def test_pretrained_however_it_is_named(classifier_file, kind):
    """mmengine's own would load what fits, without a word."""
    path, _ = classifier_file
    arch = dict(MINI, embed_dims=32)
    init_cfg = dict(type=kind, checkpoint=str(path))
    with pytest.raises(RuntimeError, match='other shapes'):
        VMamba(arch, init_cfg=init_cfg).init_weights()


def test_strict_is_true_or_false(classifier_file):
    path, _ = classifier_file
    for strict in ('no', None, 0):
        with pytest.raises(ValueError, match='strict must be True'):
            pretrained(path, strict=strict).init_weights()


def logged(call):
    """What a call logs with mmengine's current logger."""
    records = []
    logger = MMLogger.get_instance('base')
    logger.handlers[0].emit = lambda record: records.append(record)
    call()
    return [record.getMessage() for record in records]


@pytest.mark.parametrize(
    'depths',
    [(1, 1, 2, 1), (1, 1)],
)
def test_what_fits_is_taken(classifier_file, depths):
    """More blocks than in the file, or fewer stages."""
    path, source = classifier_file
    arch = dict(MINI, depths=depths)
    model = VMamba(
        arch,
        out_indices=(0,),
        init_cfg=dict(type='Pretrained', checkpoint=str(path), strict=False),
    )
    lines = logged(model.init_weights)
    own, given = model.state_dict(), source.state_dict()
    for key in own:
        if key in given:
            assert torch.equal(own[key], given[key]), key
    (line,) = [t for t in lines if t.startswith('VMamba')]
    assert str(path) in line and 'other shape: none' in line
    common = len(set(own) & set(given))
    assert f'loaded {common} of {len(own)} tensors' in line
    if depths == (1, 1):
        assert 'not in the file: norm0.* (2);' in line
        assert 'not in the model: stages.2.* (22), stages.3.* (22),' in line
    else:
        assert 'not in the file: stages.2.blocks.1.* (18), norm0.*' in line
        assert 'not in the model: norm3.* (2);' in line


def test_what_the_file_lacks_starts_as_in_an_untrained_model(classifier_file):
    path, _ = classifier_file
    arch = dict(MINI, depths=(1, 1, 2, 1))
    init_cfg = dict(type='Pretrained', checkpoint=str(path), strict=False)
    model = VMamba(arch, init_cfg=init_cfg)
    model.init_weights()
    block = model.stages[2].blocks[1]
    for weight in (block.mixer.in_proj.weight, block.mixer.out_proj.weight):
        assert 0.019 < weight.std() < 0.021  # PyTorch's own would be 0.072
    constant = dict(type='Constant', layer='Linear', val=3.0)
    model = VMamba(arch, init_cfg=[init_cfg, constant])
    model.init_weights()
    assert (model.stages[2].blocks[1].mixer.in_proj.weight == 3).all()
    assert (model.stages[2].blocks[0].mixer.in_proj.weight != 3).all()


def test_other_shapes_are_left_out(classifier_file):
    path, source = classifier_file
    model = pretrained(path, arch=dict(MINI, mlp_ratio=2.0), strict=False)
    lines = logged(model.init_weights)
    (line,) = [t for t in lines if t.startswith('VMamba')]
    assert (
        'other shape: stages.0.blocks.0.ffn.layers.0.0.weight (64, 16) '
        'instead of (32, 16), ' in line
    )
    block, other = model.stages[0].blocks[0], source.stages[0].blocks[0]
    assert torch.equal(block.mixer.in_proj.weight, other.mixer.in_proj.weight)
    assert torch.equal(block.ffn.layers[1].bias, other.ffn.layers[1].bias)


def test_a_layer_of_ones_own_is_added(classifier_file):
    class Extended(VMamba):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            width = 8 * self.arch['embed_dims']
            self.attention = nn.MultiheadAttention(width, 2)

    path, source = classifier_file
    cfg = dict(type='Pretrained', checkpoint=str(path))
    with pytest.raises(RuntimeError, match=r'add strict=False to init_cfg'):
        Extended(arch=MINI, init_cfg=cfg).init_weights()
    model = Extended(arch=MINI, init_cfg=dict(cfg, strict=False))
    lines = logged(model.init_weights)
    assert any('not in the file: attention.* (4);' in line for line in lines)
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_a_wrong_file_is_refused_all_the_same(tmp_path, classifier_file):
    path, source = classifier_file
    with pytest.raises(RuntimeError, match='wrong file: only .* of the 100 '):
        pretrained(
            path, arch=dict(MINI, embed_dims=32), strict=False
        ).init_weights()
    bare = tmp_path / 'odd.pth'
    state = {f'net.{k}': v for k, v in source.state_dict().items()}
    torch.save(state, bare)
    with pytest.raises(RuntimeError, match=r"its first: 'net\.stem") as caught:
        pretrained(bare, strict=False).init_weights()
    assert 'only 0 of the 100' in str(caught.value)
    assert '\n' not in str(caught.value)
    pretrained(bare, strict=False, prefix='net').init_weights()


@pytest.mark.parametrize('channels', [1, 4, 6, 12])
def test_images_of_other_channels(classifier_file, channels):
    """A gray image gives the same stem, see test_fitting.py."""
    path, source = classifier_file
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = VMamba(MINI, in_channels=channels, init_cfg=init_cfg)
    lines = logged(model.init_weights)
    assert (
        f'VMamba: stem.conv1 has 3 input channels in the file and {channels} '
        f'here: each gets the mean filter times 3/{channels}'
    ) in lines
    want = source.stem.conv1.weight.mean(1) * 3 / channels
    for i in range(channels):
        torch.testing.assert_close(model.stem.conv1.weight[:, i], want)
    for key, value in source.state_dict().items():
        if key != 'stem.conv1.weight':
            assert torch.equal(model.state_dict()[key], value), key
