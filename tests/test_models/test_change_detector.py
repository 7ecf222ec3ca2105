import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS as SEG_MODELS
from mmseg.structures import SegDataSample

from mmssm.models import ChangeDetector

STAGES = dict(embed_dims=8, depths=(1, 1, 1, 1))
BACKBONES = dict(
    VMamba=dict(arch=STAGES),
    SpatialMamba=dict(arch=STAGES),
    LocalVMamba=dict(arch=dict(embed_dims=8)),
    FractalMamba=dict(arch=STAGES),
    # Of one scale.
    Vim=dict(arch=dict(embed_dims=16, depth=4), out_type='featmap'),
    LocalVim=dict(
        arch=dict(embed_dims=16, depth=4, directions=['h v'] * 4),
        out_type='featmap',
    ),
)


def build_detector(backbone='VMamba', **options):
    torch.manual_seed(0)
    plain = backbone in ('Vim', 'LocalVim')
    # A pyramid of maps of one scale.
    neck = dict(type='Feature2Pyramid', embed_dim=16, norm_cfg=dict(type='BN'))
    cfg = dict(
        type='mmssm.models.ChangeDetector',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[100] * 6, std=[50] * 6
        ),
        backbone=dict(
            type=backbone,
            drop_path_rate=0.0,
            out_indices=(0, 1, 2, 3),
            **BACKBONES[backbone],
        ),
        neck=neck if plain else None,
        decode_head=dict(
            type='mmssm.models.ChangeMambaHead',
            in_channels=[16] * 4 if plain else [8, 16, 32, 64],
            channels=8,
            loss_decode=[
                dict(type='CrossEntropyLoss'),
                dict(type='LovaszLoss', reduction='none'),
            ],
        ),
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(ConfigDict(cfg | options)).eval()


def build_pairs(batch=2, height=64, width=64):
    torch.manual_seed(1)
    return torch.randn(batch, 6, height, width)


def build_samples(batch=2, height=64, width=64, **meta):
    shape = dict.fromkeys(
        ('img_shape', 'ori_shape', 'pad_shape'), (height, width)
    )
    torch.manual_seed(2)
    labels = torch.randint(0, 2, (batch, 1, height, width))
    return [
        SegDataSample(
            metainfo=dict(shape, img_path='a.png', **meta),
            gt_sem_seg=PixelData(data=label),
        )
        for label in labels
    ]


def test_is_known_to_mmseg():
    assert SEG_MODELS.get('ChangeDetector') is ChangeDetector


@torch.no_grad()
def test_one_backbone_encodes_both_images():
    model, pairs = build_detector(), build_pairs()
    batches = []
    hook = model.backbone.register_forward_pre_hook(
        lambda _, inputs: batches.append(inputs[0].shape)
    )
    maps = model.extract_feat(pairs)
    hook.remove()
    assert batches == [(4, 3, 64, 64)]
    before, after = (model.backbone(half) for half in pairs.split(3, 1))
    for both, first, second in zip(maps, before, after):
        expected = torch.cat((first, second), 1)
        assert both.shape == expected.shape
        assert torch.allclose(both, expected, atol=1e-5)
    # Both halves differ, so that their order was told.
    assert not torch.allclose(before[0], after[0], atol=0.1)


def test_single_images_are_refused():
    with pytest.raises(ValueError, match='pairs of images.*got 3 channels'):
        build_detector()(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize('backbone', BACKBONES)
def test_learns_with_any_backbone(backbone):
    model = build_detector(backbone).train()
    losses = model(build_pairs(2, 52, 36), build_samples(2, 52, 36), 'loss')
    assert {'decode.loss_ce', 'decode.loss_lovasz'} < set(losses)
    loss, _ = model.parse_losses(losses)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_predictions_have_the_pairs_size():
    model = build_detector()
    samples = build_samples(2, 50, 70)
    found = model(build_pairs(2, 50, 70), samples, 'predict')
    for sample in found:
        assert sample.pred_sem_seg.data.shape == (1, 50, 70)
        assert sample.seg_logits.data.shape == (2, 50, 70)


@torch.no_grad()
def test_windows_cut_both_images_alike():
    window = dict(mode='slide', crop_size=(32, 32), stride=(32, 32))
    model, pairs = build_detector(test_cfg=window), build_pairs(1)
    (found,) = model(pairs, build_samples(1), 'predict')
    model.test_cfg = ConfigDict(mode='whole')
    logits = found.seg_logits.data
    for top in (0, 32):
        for left in (0, 32):
            place = ..., slice(top, top + 32), slice(left, left + 32)
            (part,) = model(pairs[place].contiguous(), mode='predict')
            expected = part.seg_logits.data
            assert torch.allclose(logits[place], expected, atol=1e-5)


@torch.no_grad()
def test_augmented_views_are_merged():
    """Two views of a pair, the second one mirrored."""
    detector = build_detector()
    pair = torch.randint(0, 256, (6, 32, 32), dtype=torch.uint8)

    def predict(pair):
        inputs = (pair[None].float() - 100) / 50
        return detector(inputs, mode='predict')[0].seg_logits.data

    # Every other pixel has changed, or nearly so.
    torch.nn.init.normal_(detector.decode_head.conv_seg.weight)
    unchanged, changed = predict(pair)
    bias = detector.decode_head.conv_seg.bias
    bias[1] -= (changed - unchanged).median()

    views = [
        build_samples(1, 32, 32)[0],
        build_samples(1, 32, 32, flip=True, flip_direction='horizontal')[0],
    ]
    (merged,) = SegTTAModel(module=detector).test_step(
        dict(
            inputs=[[pair], [pair.flip(-1)]],
            data_samples=[[view] for view in views],
        )
    )
    plain = predict(pair).softmax(0)
    mirrored = predict(pair.flip(-1)).softmax(0).flip(-1)
    mean = (plain + mirrored) / 2
    found = merged.pred_sem_seg.data.squeeze()
    sure = (mean[0] - mean[1]).abs() > 1e-5  # no tie
    assert sure.float().mean() > 0.9
    assert torch.equal(found[sure], mean.argmax(0)[sure])
    # Neither view says so alone.
    for view in (plain, mirrored):
        assert not torch.equal(found[sure], view.argmax(0)[sure])
