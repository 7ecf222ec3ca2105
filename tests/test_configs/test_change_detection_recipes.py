"""The change detectors train as ChangeMamba's authors train theirs."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from recipes import CONFIGS, decayed

import mmssm
from mmssm.layers import SS2D
from mmssm.scans import HILBERT

DETECTORS = [
    path
    for path in sorted(CONFIGS.glob('*/changemamba_*.py'))
    if path.parent.name not in ('_base_', 'mini')
]
# The archs and datasets of which ChangeMamba's authors published models.
ARCHS = ('tiny-s2l4', 'small-s2l15', 'base-s2l15')
DATA = ('levir-cd-plus', 'sysu-cd', 'whu-cd')


@pytest.fixture(params=DETECTORS, ids=lambda path: path.stem, scope='module')
def path(request):
    return request.param


@pytest.fixture(scope='module')
def cfg(path):
    return Config.fromfile(path, import_custom_modules=False)


def test_every_family_with_one_is_here():
    found = {path.parent.name for path in DETECTORS}
    assert found == {
        'change_mamba',
        'fractal_mamba',
        'spatial_mamba',
        'vmamba',
    }


def test_all_that_the_authors_published_is_here():
    names = {p.stem for p in DETECTORS if p.parent.name == 'change_mamba'}
    assert names == {
        f'changemamba_vmamba-{arch}_{data}' for arch in ARCHS for data in DATA
    }


def uses_vmamba(path):
    return path.parent.name in ('change_mamba', 'vmamba')


def test_model(cfg, path):
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    assert cfg.model.type == 'mmssm.models.ChangeDetector'
    assert backbone.out_indices == (0, 1, 2, 3)
    family, name, data = path.stem.split('_')
    model = path.parent.name.replace('_', '-')
    model = 'vmamba' if uses_vmamba(path) else model
    assert (family, name) == ('changemamba', f'{model}-{backbone.arch}')
    assert data in DATA
    roots = {
        cfg[f'{split}_dataloader'].dataset.data_root.lower()
        for split in ('train', 'val', 'test')
    }
    assert roots == {f'data/{data}'.replace('-plus', '+')}
    assert head.type == 'mmssm.models.ChangeMambaHead'
    assert head.channels == 128 and head.num_classes == 2
    kind = getattr(mmssm, backbone.type)
    width = kind.arch_settings[backbone.arch]['embed_dims']
    assert head.in_channels == [width * 2**i for i in range(4)]
    cross_entropy, lovasz = head.loss_decode
    assert cross_entropy == dict(
        type='CrossEntropyLoss', loss_weight=1.0, avg_non_ignore=True
    )
    assert lovasz == dict(
        type='LovaszLoss', per_image=False, reduction='none', loss_weight=0.75
    )


def test_blocks_are_the_backbones(cfg, path):
    """The decoder scans as the backbone does, as far as that has a say."""
    kind = getattr(mmssm, cfg.model.backbone.type)
    arch = kind.arch_settings[cfg.model.backbone.arch]
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(cfg.model.decode_head)
    mixers = [m for m in head.modules() if isinstance(m, SS2D)]
    assert len(mixers) == 12
    for mixer in mixers:
        assert mixer.out_norm.normalized_shape == (arch['ssm_ratio'] * 128,)
        assert mixer.d_state == arch.get('d_state', 1)
        if uses_vmamba(path):
            assert (mixer.gate_proj is not None) == arch['gate']
            assert mixer.routes == tuple(arch['routes'])
            assert (mixer.conv2d.bias is not None) == arch['conv_bias']
        if path.parent.name == 'fractal_mamba':
            assert mixer.gate_proj is not None
            assert mixer.conv2d.bias is None
            assert mixer.routes == HILBERT


def test_input_is_a_pair(cfg):
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53] * 2
    assert preprocessor.std == [58.395, 57.12, 57.375] * 2
    assert not preprocessor.get('bgr_to_rgb')
    assert preprocessor.size == (256, 256)
    assert preprocessor.seg_pad_val == 255


def test_sizes_of_training_and_testing(cfg, path):
    """Crops of 256; the authors' models are tested as they test them."""
    windows = dict(mode='slide', crop_size=(256, 256), stride=(256, 256))
    whole = dict(mode='whole')
    theirs = path.parent.name == 'change_mamba'
    assert cfg.model.test_cfg == (whole if theirs else windows)
    # Pairs of SYSU-CD are of this size.
    side = None if path.stem.endswith('sysu-cd') else 256
    assert cfg.train_dataloader.dataset.tile_size == side
    assert cfg.test_dataloader.dataset.get('tile_size') is None


def test_backbone_starts_from_the_authors_weights(cfg, path):
    if path.parent.name != 'change_mamba':
        return
    backbone = cfg.model.backbone
    file = {
        'tiny-s2l4': 'vssm_tiny_0230_ckpt_epoch_262.pth',
        'small-s2l15': 'vssm_small_0229_ckpt_epoch_222.pth',
        'base-s2l15': 'vssm_base_0229_ckpt_epoch_237.pth',
    }[backbone.arch]
    assert backbone.init_cfg.checkpoint.endswith(f'/{file}')
    # The file of the tiny one has a block more.
    strict = backbone.init_cfg.get('strict', True)
    assert strict == (backbone.arch != 'tiny-s2l4')


def test_optimization(cfg):
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=5e-3
    )
    assert cfg.train_dataloader.batch_size == 16
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.param_scheduler == []
    with_decay, without = decayed(cfg)
    assert with_decay and not without


def test_schedule(cfg):
    assert cfg.train_cfg.type == 'IterBasedTrainLoop'
    assert cfg.train_cfg.max_iters == 20_000
    assert cfg.train_cfg.val_interval == 500
    keep = cfg.default_hooks.checkpoint
    assert (keep.save_best, keep.rule) == ('kappa', 'greater')
    assert keep.interval == 500 and keep.by_epoch is False
    assert cfg.tta_model.type == 'SegTTAModel'
