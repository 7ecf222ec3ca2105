"""Inference with less usual heads, whose answers are known.

Their last layers have no weights, only biases.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from mmssm.apis import evaluate, infer
from mmssm.apis.predictions import draw_predictions
from mmssm.utils import ConfigError

SIZE = 64, 48  # width and height
RESNET = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)


def only_biases(layer, biases):
    layer.weight.data.zero_()
    layer.bias.data[:] = torch.as_tensor(biases)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write a config, an image and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3))
    Path('set').mkdir()
    Image.fromarray(pixels.astype(np.uint8)).save('set/one.png')

    def make(scope, model, change, dataset, pipeline, **others):
        dataset |= dict(pipeline=pipeline)
        cfg = dict(default_scope=scope, model=model, **others)
        cfg['test_dataloader'] = dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
        )
        Config(cfg).dump('config.py')
        with DefaultScope.overwrite_default_scope(scope):
            built = MODELS.build(model)
        change(built)
        torch.save(dict(state_dict=built.state_dict()), 'model.pth')
        return 'config.py', 'model.pth'

    return make


def record():
    return json.loads(Path('out/preds/one.json').read_text())


@pytest.mark.parametrize(
    'head, expected',
    [(dict(thr=0.5), [2, 1]), (dict(thr=0.95), []), (dict(topk=1), [2])],
)
def test_of_several_labels_those_predicted_are_given(make, head, expected):
    head = dict(type='MultiLabelLinearClsHead', **head)
    model = dict(
        type='ImageClassifier',
        backbone=RESNET,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(head, num_classes=3, in_channels=64),
    )
    files = make(
        'mmpretrain',
        model,
        lambda built: only_biases(built.head.fc, [-1.0, 1.0, 2.0]),
        dict(type='CustomDataset', classes=['ant', 'fox', 'owl']),
        [dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    assert infer('set', *files, 'out').done == 1
    found = record()['classes']
    assert [row['label'] for row in found] == expected
    scores = torch.tensor([-1.0, 1.0, 2.0]).sigmoid()[expected].tolist()
    assert [row['score'] for row in found] == pytest.approx(scores)


def binary(make, **settings):
    """A segmentor with one output that sees label 1 everywhere."""
    Image.new('L', SIZE, 1).save('set/label.png')
    head = dict(type='FCNHead', in_channels=64, channels=8, num_convs=1)
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=RESNET,
        decode_head=dict(
            head,
            in_index=3,
            threshold=0.3,
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
            **settings.pop('head'),
        ),
        test_cfg=dict(mode='whole'),
    )
    return make(
        'mmseg',
        model,
        lambda built: only_biases(built.decode_head.conv_seg, 3.0),
        dict(
            type='BaseSegDataset',
            data_root='set',
            img_suffix='one.png',
            seg_map_suffix='label.png',
            data_prefix=dict(img_path='', seg_map_path=''),
            metainfo=settings,
        ),
        [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
        test_evaluator=dict(type='IoUMetric'),
        test_cfg=dict(type='TestLoop'),
        visualizer=dict(type='SegLocalVisualizer'),
    )


@pytest.mark.parametrize('classes', [('road',), ('ground', 'road')])
@pytest.mark.parametrize(
    'head', [dict(num_classes=1), dict(num_classes=2, out_channels=1)]
)
def test_one_output_for_two_classes(make, head, classes, capsys):
    red = (200, 0, 0)
    palette = [(0, 0, 200), red][-len(classes) :]
    files = binary(make, head=head, classes=classes, palette=palette)
    assert infer('set/one.png', *files, 'out').done == 1
    assert record()['classes'] == [dict(label=1, name='road', share=1.0)]
    assert (np.array(Image.open('out/preds/one.png')) == 1).all()
    metrics = evaluate(*files, work_dir='work', show_dir='shown')
    assert metrics['aAcc'] == 100
    told = 'names one class, road; label 0 is called background'
    assert (told in capsys.readouterr().err) == (len(classes) == 1)
    (picture,) = Path('shown').iterdir()
    pixels = np.array(Image.open(picture)).astype(int)
    assert pixels.shape[1] == 2 * SIZE[0]
    # Truth and prediction in the class's color, but for its name.
    assert np.median(pixels[..., 0] - pixels[..., 2]) > 80
    draw_predictions(*files, 'sheet.png', num=1)


def test_one_output_does_not_tell_three_classes(make):
    names = ('ground', 'road', 'path')
    files = binary(make, head=dict(num_classes=1), classes=names)
    with pytest.raises(ConfigError, match='lists 3 class names .* 2 classes'):
        infer('set/one.png', *files, 'out')


_HEAD = dict(in_channels=8, num_classes=2)
_CLASSES = dict(num_things_classes=2, num_stuff_classes=1)
PANOPTIC = dict(  # in place of parts of mmdet's Mask R-CNN
    type='PanopticFPN',
    backbone=dict(RESNET, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(_HEAD, fc_out_channels=8),
        mask_roi_extractor=dict(out_channels=8),
        mask_head=dict(_HEAD, num_convs=1, conv_out_channels=8),
    ),
    semantic_head=dict(
        type='PanopticFPNHead',
        in_channels=8,
        inner_channels=8,
        start_level=0,
        end_level=4,
        norm_cfg=dict(type='GN', num_groups=2),
        **_CLASSES,
    ),
    panoptic_fusion_head=dict(type='HeuristicFusionHead', **_CLASSES),
    test_cfg=dict(
        rpn=dict(max_per_img=10),
        rcnn=dict(max_per_img=3),
        panoptic=dict(mask_overlap=0.9, stuff_area_limit=1),
    ),
)


def test_panoptic_segments(make):
    names = ('ant', 'fox', 'sky')
    base = "_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']"
    base = Config.fromstring(base, '.py')
    base.merge_from_dict(dict(model=PANOPTIC))

    def change(model):
        only_biases(model.roi_head.bbox_head.fc_cls, [0.0, 3.0, 0.0])
        only_biases(model.rpn_head.rpn_reg, 0.0)
        only_biases(model.roi_head.bbox_head.fc_reg, 0.0)
        only_biases(model.roi_head.mask_head.conv_logits, [-9.0, 9.0])
        only_biases(model.semantic_head.conv_logits, [9.0, 0.0])

    palette = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    files = make(
        'mmdet',
        base.model,
        change,
        dict(
            type='CocoPanopticDataset',
            metainfo=dict(classes=names, palette=palette),
        ),
        [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=SIZE, keep_ratio=True),
            dict(type='LoadPanopticAnnotations'),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    )
    assert infer('set', *files, 'out').done == 1
    found = record()
    ids = np.array(Image.open(f'out/preds/{found["index_map"]}'))
    assert ids.shape == SIZE[::-1]
    assert {row['name'] for row in found['segments']} == {'fox', 'sky'}
    for row in found['segments']:
        assert row['name'] == names[row['label']]
        assert (ids == row['id']).mean() == row['share']
    shares = [row['share'] for row in found['segments']]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 1
    assert Image.open('out/vis/one.png').width == 640
