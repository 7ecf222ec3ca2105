"""LocalVim's and Vim's detectors and segmentors train as their authors' do."""

import copy

import numpy as np
import pytest
import torch
from families import LOCAL_VIM, VIM
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from recipes import parameter_groups, views_of

SEGMENTORS = [
    (LOCAL_VIM, 'tiny'),
    (LOCAL_VIM, 'small'),
    (VIM, 'tiny'),
    (VIM, 'small'),
]
LAYERS = {LOCAL_VIM.model: (4, 9, 14, 19), VIM.model: (5, 11, 17, 23)}


def segmentor(family, arch):
    recipe = '4xb8-60k' if family is VIM else '4xb4-160k'
    return family.config(
        f'{family}-{arch}-in1k-pre_upernet_{recipe}_ade20k-512x512'
    )


def detector(arch):
    return LOCAL_VIM.config(
        f'cascade-mask-rcnn_local-vim-{arch}_simple-fpn_lsj-100e_coco'
    )


@pytest.mark.parametrize(('family', 'arch'), SEGMENTORS, ids=str)
def test_segmentor(family, arch):
    cfg = segmentor(family, arch)
    family.check_backbone(cfg, arch)
    backbone = cfg.model.backbone
    assert backbone.img_size == 512
    assert backbone.out_type == 'featmap'
    assert backbone.out_indices == LAYERS[family.model]
    width = family.archs[arch].width
    head, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (head.type, auxiliary.type) == ('UPerHead', 'FCNHead')
    assert head.in_channels == [width] * 4
    assert auxiliary.in_channels == width
    assert auxiliary.channels == 256
    assert auxiliary.loss_decode.loss_weight == 0.4
    for part in (head, auxiliary):
        assert part.num_classes == 150
        assert part.norm_cfg == dict(type='SyncBN', requires_grad=True)
    test_cfg = cfg.model.test_cfg
    if family is VIM:
        assert cfg.model.neck == dict(type='Feature2Pyramid', embed_dim=width)
        assert head.channels == width
        assert auxiliary.in_index == 2
        assert test_cfg.mode == 'slide'
        assert test_cfg.crop_size == (512, 512)
        assert test_cfg.stride == (341, 341)
    else:
        assert 'neck' not in cfg.model
        assert head.channels == 512
        assert auxiliary.in_index == 3
        assert test_cfg.mode == 'whole'


@pytest.mark.parametrize(('family', 'arch'), SEGMENTORS, ids=str)
def test_segmentors_optimization(family, arch):
    cfg = segmentor(family, arch)
    lr, decay, steps, images = {
        ('local-vim', 'tiny'): (6e-5, 0.01, 160_000, 16),
        ('local-vim', 'small'): (6e-5, 0.01, 160_000, 16),
        ('vim', 'tiny'): (2e-4, 0.1, 60_000, 32),
        ('vim', 'small'): (1e-4, 0.05, 60_000, 32),
    }[family.model, arch]
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.get('clip_grad') is None
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=decay
    )
    assert 4 * cfg.train_dataloader.batch_size == images
    assert cfg.auto_scale_lr.base_batch_size == images
    assert cfg.train_cfg.max_iters == steps
    warmup, poly = cfg.param_scheduler
    assert warmup == dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500
    )
    assert poly == dict(
        type='PolyLR',
        eta_min=0.0,
        power=1.0,
        by_epoch=False,
        begin=1500,
        end=steps,
    )
    # What evaluates and saves does so at the end, too.
    for interval in (
        cfg.train_cfg.val_interval,
        cfg.default_hooks.checkpoint.interval,
    ):
        assert steps % interval == 0


def test_weight_decay_of_local_vims_segmentor():
    """Norms and positions are free, those that heads call bn are not."""
    cfg = segmentor(LOCAL_VIM, 'tiny')
    free = {n for n, (_, _, d) in parameter_groups(cfg).items() if d == 0.0}
    layers, maps = 20, 4
    norms = {n for n in free if n.startswith('backbone') and 'norm' in n}
    assert free == norms | {'backbone.pos_embed'}
    # Before each mixer a weight; in each gate and of each map a bias, too.
    assert len(norms) == layers + 2 * layers + 2 * maps
    rates = {lr for _, lr, _ in parameter_groups(cfg).values()}
    assert rates == {6e-5}


@pytest.mark.parametrize(
    ('arch', 'layer_decay'), [('tiny', 0.92), ('small', 0.95)]
)
def test_rates_of_vims_segmentor(arch, layer_decay):
    """With 24 layers, the first of 26 rates; the others have the last."""
    cfg = segmentor(VIM, arch)
    full = cfg.optim_wrapper.optimizer
    first = {
        'backbone.stem.conv.weight',
        'backbone.stem.conv.bias',
        'backbone.pos_embed',
        'backbone.cls_token',
    }
    groups = parameter_groups(cfg)
    assert first < set(groups)
    for name, (param, lr, decay) in groups.items():
        scale = layer_decay**25 if name in first else 1.0
        assert lr == full.lr * scale
        flat = param.ndim == 1 or name.endswith('.bias')
        assert decay == (0.0 if flat else full.weight_decay)


@pytest.mark.parametrize(('arch', 'images'), [('tiny', 2), ('small', 1)])
def test_detector(arch, images):
    cfg = detector(arch)
    LOCAL_VIM.check_backbone(cfg, arch)
    backbone, width = cfg.model.backbone, LOCAL_VIM.archs[arch].width
    assert backbone.img_size == (1024, 1024)
    assert backbone.out_type == 'featmap'
    assert backbone.out_indices == (19,)
    norm = dict(type='mmpretrain.LN2d')
    assert cfg.model.type == 'CascadeRCNN'
    assert cfg.model.neck == dict(
        type='mmssm.models.SimpleFPN', in_channels=width, norm_cfg=norm
    )
    assert cfg.model.rpn_head.num_convs == 2
    heads = cfg.model.roi_head.bbox_head
    assert len(heads) == 3
    for head in heads:
        assert head.type == 'Shared4Conv1FCBBoxHead'
        assert head.conv_out_channels == 256
        assert head.fc_out_channels == 1024
        assert head.norm_cfg == norm
    assert [h.bbox_coder.target_stds[0] for h in heads] == [0.1, 0.05, 0.033]
    assert cfg.model.roi_head.mask_head.norm_cfg == norm
    assert cfg.train_dataloader.batch_size == images
    assert cfg.auto_scale_lr.base_batch_size == 64


def test_detectors_optimization():
    cfg = detector('tiny')
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=35, norm_type=2)
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    warmup, steps = cfg.param_scheduler
    assert warmup == dict(
        type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=250
    )
    assert steps.type == 'MultiStepLR'
    assert steps.by_epoch is False
    assert steps.milestones == [163_889, 177_546]
    assert steps.gamma == 0.1
    assert cfg.train_cfg.type == 'IterBasedTrainLoop'
    assert cfg.train_cfg.max_iters == steps.end == 184_375
    assert cfg.default_hooks.checkpoint.by_epoch is False
    assert cfg.log_processor.by_epoch is False


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_rates_of_the_detector(arch):
    """With "12 layers", the first of 14 rates; the others have the last."""
    groups = parameter_groups(detector(arch))
    stem = {'backbone.stem.conv.weight', 'backbone.stem.conv.bias'}
    first = stem | {'backbone.pos_embed'}
    assert first < set(groups)
    for name, (_, lr, decay) in groups.items():
        assert lr == 1e-4 * (0.7**13 if name in first else 1.0)
        assert decay == (0.0 if name == 'backbone.pos_embed' else 0.05)


def test_detectors_augmentation():
    pipeline = detector('tiny').train_dataloader.dataset.pipeline
    assert [step.type for step in pipeline] == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'RandomFlip',
        'RandomResize',
        'RandomCrop',
        'FilterAnnotations',
        'Pad',
        'PackDetInputs',
    ]
    _, _, flip, resize, crop, _, pad, _ = pipeline
    assert flip.prob == 0.5
    assert resize.scale == (1024, 1024)
    assert resize.ratio_range == (0.1, 2.0)
    assert crop.crop_size == pad.size == (1024, 1024)
    for loader in ('val_dataloader', 'test_dataloader'):
        pipeline = detector('tiny')[loader].dataset.pipeline
        assert [step.type for step in pipeline] == [
            'LoadImageFromFile',
            'Resize',
            'LoadAnnotations',
            'PackDetInputs',
        ]
        assert pipeline[1].scale == (1024, 1024)


@pytest.mark.parametrize('shape', [(480, 640), (640, 480)])
def test_the_detector_sees_squares(shape):
    cfg = detector('tiny')
    pipeline = cfg.test_dataloader.dataset.pipeline
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    loaded = dict(img=image, img_shape=shape, ori_shape=shape, instances=[])
    with DefaultScope.overwrite_default_scope('mmdet'):
        data = Compose(pipeline[1:])({**loaded, 'img_id': 7, 'img_path': ''})
        preprocessor = MODELS.build(cfg.model.data_preprocessor)
    data = preprocessor(pseudo_collate([data]), training=False)
    assert data['inputs'].shape == (1, 3, 1024, 1024)
    # Boxes end with the image, not with the square.
    expected = tuple(side * 1024 // 640 for side in shape)
    assert data['data_samples'][0].img_shape == expected


def test_detectors_tta_takes_three_sizes():
    cfg = detector('tiny')
    assert cfg.tta_model.type == 'mmssm.models.InstanceSegTTAModel'
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    views = views_of(cfg, image, img_id=7, img_path='', instances=[])
    for view, sample, side in zip(
        views['inputs'], views['data_samples'], (768, 896, 1024), strict=True
    ):
        assert view.shape == (3, side * 3 // 4, side)
        assert sample.ori_shape == (480, 640)
        assert sample.scale_factor == (side / 640, side / 640)


def test_detectors_views_are_merged():
    """Of mirror images MMDetection's cascaded mask heads make an error."""
    cfg = detector('tiny')
    settings = copy.deepcopy(cfg.model)
    settings.backbone.update(
        arch=dict(embed_dims=16, depth=1),
        directions=['h w7'],
        out_indices=(0,),
        img_size=64,
        init_cfg=None,
    )
    settings.data_preprocessor.pad_size_divisor = 64
    settings.neck.in_channels = 16
    settings.test_cfg.rpn.update(nms_pre=20, max_per_img=5)
    settings.test_cfg.rcnn.update(score_thr=0.0, max_per_img=2)
    pipeline = copy.deepcopy(cfg.tta_pipeline)
    for resize, side in zip(pipeline[1].transforms[0], (32, 48, 64)):
        resize.scale = (side, side)
    small = Config(dict(default_scope='mmdet', tta_pipeline=pipeline))
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    views = views_of(small, image, img_id=7, img_path='', instances=[])
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.no_grad():
        model = MODELS.build({**cfg.tta_model, 'module': settings}).eval()
        (result,) = model.test_step(pseudo_collate([views]))
    found = result.pred_instances
    assert len(found) > 0
    assert found.masks.shape == (len(found), 30, 40)
