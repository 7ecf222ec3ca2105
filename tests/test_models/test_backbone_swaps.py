"""Every family as the backbone of the libraries' own detectors and segmentors.

A user's config inherits the library's config and changes the backbone and the
channels that depend on it, nothing else.
"""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope

import mmssm.models  # noqa: F401
from mmssm.apis.model_checks import check_channels

SIZE = 64
STAGES = dict(arch=dict(embed_dims=16, depths=(1, 1, 1, 1)))
ROUTES = dict(directions=['h w2', 'v w7', 'h_flip w3', 'v_flip w2_flip'])
BACKBONES = {
    'VMamba': STAGES,
    'SpatialMamba': STAGES,
    'LocalVMamba': dict(arch=dict(STAGES['arch'], **ROUTES)),
    'FractalMamba': STAGES,
    'LocalVim': dict(
        arch=dict(embed_dims=32, depth=4, **ROUTES), out_type='featmap'
    ),
}
CHANNELS = [16, 32, 64, 128]  # of the stages; LocalVim has 32 everywhere


def neck(out_channels=256, num_outs=5):
    """What makes several maps of LocalVim's."""
    return dict(
        _delete_=True,
        type='mmssm.models.SimpleFPN',
        in_channels=32,
        out_channels=out_channels,
        num_outs=num_outs,
    )


FOUR = dict(
    stages=dict(neck=dict(in_channels=CHANNELS)),
    plain=dict(neck=neck()),
)
THREE = dict(out_indices=(1, 2, 3), neck=dict(in_channels=CHANNELS[1:]))
# In configs that have no neck to replace.
NEW_NECK = {k: v for k, v in neck(num_outs=4).items() if k != '_delete_'}
# For backbones with stages and for plain ones: what the user writes beside
# the backbone.
DETECTORS = {
    'retinanet/retinanet_r50_fpn_1x_coco.py': FOUR,
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': FOUR,
    'atss/atss_r50_fpn_1x_coco.py': FOUR,
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': FOUR,
    'solov2/solov2_r50_fpn_1x_coco.py': FOUR,
    'dino/dino-4scale_r50_8xb2-12e_coco.py': dict(
        stages=THREE, plain=dict(neck=neck(num_outs=4))
    ),
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': dict(
        stages=THREE, plain=dict(neck=neck(num_outs=4))
    ),
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py': dict(
        stages=THREE,
        plain=dict(
            neck=neck(out_channels=96, num_outs=4),
            bbox_head=dict(anchor_generator=dict(strides=[4, 8, 16, 32])),
        ),
    ),
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': dict(
        stages=dict(panoptic_head=dict(in_channels=CHANNELS)),
        plain=dict(neck=NEW_NECK, panoptic_head=dict(in_channels=[256] * 4)),
    ),
}
SEGMENTORS = {
    'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': dict(
        stages=dict(decode_head=dict(in_channels=CHANNELS)),
        plain=dict(neck=NEW_NECK, decode_head=dict(in_channels=[256] * 4)),
    ),
    'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py': dict(
        stages=FOUR['stages'], plain=dict(neck=neck(num_outs=4))
    ),
    'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py': dict(
        stages=dict(
            decode_head=dict(in_channels=128, c1_in_channels=16),
            auxiliary_head=dict(in_channels=64),
        ),
        plain=dict(
            neck=NEW_NECK,
            decode_head=dict(in_channels=256, c1_in_channels=256),
            auxiliary_head=dict(in_channels=256),
        ),
    ),
    'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py': dict(
        stages=dict(decode_head=dict(in_channels=CHANNELS)),
        plain=dict(neck=NEW_NECK, decode_head=dict(in_channels=[256] * 4)),
    ),
}
# Not part of the swap: smaller models and batches, so that a step takes about
# a second, and no more queries than a small image has tokens.
SMALLER = {
    'cascade_rcnn': {
        'train_cfg.rpn_proposal.max_per_img': 20,
        'train_cfg.rcnn.0.sampler.num': 8,
        'train_cfg.rcnn.1.sampler.num': 8,
        'train_cfg.rcnn.2.sampler.num': 8,
        'test_cfg.rpn.max_per_img': 20,
        'test_cfg.rcnn.max_per_img': 5,
    },
    'solov2': {'mask_head.feat_channels': 64},
    'dino': {
        'num_queries': 20,
        'encoder.num_layers': 1,
        'decoder.num_layers': 2,
    },
    'deformable_detr': {'encoder.num_layers': 1, 'decoder.num_layers': 2},
    'segformer': {'decode_head.channels': 64},
    'deeplabv3plus': {
        'decode_head.channels': 64,
        'auxiliary_head.channels': 64,
    },
    'mask2former/mask2former_r50_8xb2-lsj': {
        'data_preprocessor.batch_augments': None,  # pads to 1024 x 1024
        'panoptic_head.num_queries': 10,
        'panoptic_head.pixel_decoder.encoder.num_layers': 1,
        'panoptic_head.transformer_decoder.num_layers': 3,
        'train_cfg.num_points': 100,
    },
    'mask2former/mask2former_r50_8xb2-160k': {
        'decode_head.num_queries': 10,
        'decode_head.pixel_decoder.encoder.num_layers': 1,
        'decode_head.transformer_decoder.num_layers': 3,
        'decode_head.train_cfg.num_points': 100,
    },
}


def user_config(tmp_path, library, config, backbone):
    recipes = DETECTORS if library == 'mmdet' else SEGMENTORS
    kind = 'plain' if backbone == 'LocalVim' else 'stages'
    parts = dict(recipes[config][kind])
    indices = parts.pop('out_indices', (0, 1, 2, 3))
    model = dict(
        backbone=dict(
            _delete_=True,
            type=backbone,
            out_indices=(-1,) if kind == 'plain' else indices,
            **BACKBONES[backbone],
        ),
        **parts,
    )
    if library == 'mmseg':
        model['pretrained'] = None
    path = tmp_path / 'config.py'
    path.write_text(
        f"_base_ = ['{library}::{config}']\n"
        "custom_imports = dict(imports=['mmssm'])\n"
        f'model = {model}\n'
    )
    cfg = Config.fromfile(path)
    for start, changes in SMALLER.items():
        if config.startswith(start):
            cfg.merge_from_dict({f'model.{k}': v for k, v in changes.items()})
    return cfg


def build(cfg):
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    check_channels(cfg, model)
    model.init_weights()
    return model


def learn_and_predict(model, data):
    """One step, after which the backbone has changed; one prediction."""
    weight = next(p for p in model.backbone.parameters() if p.dim() > 1)
    before = weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    losses = model.train().train_step(data, OptimWrapper(optimizer))
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    assert not torch.equal(weight, before)
    model.eval()
    with torch.no_grad():
        (sample,) = model.test_step(
            {key: value[:1] for key, value in data.items()}
        )
    return sample


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('config', DETECTORS)
def test_detectors(config, backbone, tmp_path):
    from mmdet.testing import demo_mm_inputs

    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build(user_config(tmp_path, 'mmdet', config, backbone))
        data = demo_mm_inputs(
            2,
            [(3, SIZE, SIZE)] * 2,
            num_items=[2, 2],
            with_mask=any(s in config for s in ('mask', 'solo')),
        )
        for sample in data['data_samples']:
            size = (SIZE, SIZE)
            sample.set_metainfo(dict(batch_input_shape=size, pad_shape=size))
        found = learn_and_predict(model, data).pred_instances
    assert 'scores' in found and torch.isfinite(found.scores).all()
    assert 'bboxes' in found


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('config', SEGMENTORS)
def test_segmentors(config, backbone, tmp_path):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build(user_config(tmp_path, 'mmseg', config, backbone))
        size = (SIZE, SIZE)
        samples = []
        for _ in range(2):
            sample = SegDataSample(
                metainfo=dict(
                    img_shape=size, ori_shape=size, pad_shape=size, flip=False
                )
            )
            labels = torch.randint(0, 5, (1, *size))
            sample.gt_sem_seg = PixelData(data=labels)
            samples.append(sample)
        images = [torch.randint(0, 256, (3, *size)).byte() for _ in samples]
        sample = learn_and_predict(
            model, dict(inputs=images, data_samples=samples)
        )
    assert sample.pred_sem_seg.shape == size
