import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmssm.layers import SS2D, VSSBlock
from mmssm.models import ChangeMambaHead
from mmssm.models.change_mamba_head import alternate_columns, part_columns

BASE = Path(__file__).parents[2] / 'configs/_base_/changemamba.py'
WIDTHS = [4, 8, 12, 16]


def build_head(**options):
    torch.manual_seed(0)
    head = ChangeMambaHead(WIDTHS, 8, **options)
    for parameter in head.parameters():  # norms and biases, too
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return head.eval()


def build_maps(*sizes, batch=2, widths=WIDTHS):
    """The two images' maps, NCHW, of one size for each stage."""
    torch.manual_seed(1)
    return [
        [
            torch.randn(batch, width, *size)
            for width, size in zip(widths, sizes)
        ]
        for _ in range(2)
    ]


def pair_up(before, after):
    return [torch.cat(maps, 1) for maps in zip(before, after)]


SIZES = (16, 12), (8, 6), (4, 3), (2, 2)


def test_columns_alternate():
    before = torch.arange(6.0).view(1, 2, 3, 1)
    both = alternate_columns(before, -before - 1)
    assert both[0, :, :, 0].tolist() == [
        [0, -1, 1, -2, 2, -3],
        [3, -4, 4, -5, 5, -6],
    ]
    again = part_columns(both)
    assert torch.equal(again[0], before)
    assert torch.equal(again[1], -before - 1)


def run(layers, x):
    """A projection and its block on an NCHW map."""
    for layer in layers:
        x = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return x


def fuse(fusion, before, after):
    """What a stage computes, column by column."""
    columns = range(before.shape[-1])
    mixed = torch.stack(
        [m[..., c] for c in columns for m in (before, after)], -1
    )
    mixed = run(fusion.interleave, mixed)
    wide = run(fusion.split, torch.cat((before, after), -1))
    maps = [
        run(fusion.cat, torch.cat((before, after), 1)),
        torch.stack([mixed[..., 2 * c] for c in columns], -1),
        torch.stack([mixed[..., 2 * c + 1] for c in columns], -1),
        wide[..., : len(columns)],
        wide[..., len(columns) :],
    ]
    merge = fusion.merge
    return F.relu(merge.bn(merge.conv(torch.cat(maps, 1))))


def residual(block, x):
    inner = F.relu(block.bn1(block.conv1(x)))
    return F.relu(x + block.bn2(block.conv2(inner)))


def test_head_is_changemambas():
    head = build_head()
    before, after = build_maps(*SIZES)
    assert len(head.fusions) == 4 and len(head.residuals) == 3
    x = fuse(head.fusions[3], before[3], after[3])
    for stage in (2, 1, 0):
        x = F.interpolate(x, size=SIZES[stage], mode='bilinear')
        x = x + fuse(head.fusions[stage], before[stage], after[stage])
        x = residual(head.residuals[stage], x)
    logits = head(pair_up(before, after))
    assert logits.shape == (2, 2, *SIZES[0])
    assert torch.allclose(logits, head.conv_seg(x), atol=1e-4, rtol=1e-4)


def test_norms_and_corners_are_as_asked_for():
    head = build_head(norm_cfg=dict(type='SyncBN'), align_corners=True)
    kinds = {type(m).__name__ for m in head.modules()}
    found = {kind for kind in kinds if 'Norm' in kind}
    assert found == {'SyncBatchNorm', 'LayerNorm', 'ScanNorm'}
    plain, aligned = build_head(), build_head(align_corners=True)
    maps = pair_up(*build_maps(*SIZES))
    assert not torch.allclose(plain(maps), aligned(maps), atol=1e-3)


def test_images_are_not_interchangeable():
    head = build_head()
    before, after = build_maps(*SIZES)
    forth, back = head(pair_up(before, after)), head(pair_up(after, before))
    assert not torch.allclose(forth, back, atol=1e-3)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ('mixer', 'inner', 'gated'), [({}, 128, 1), (dict(gate=True), 256, 2)]
)
def test_parameters_are_those_of_the_paper(mixer, inner, gated):
    """Layer by layer, at the sizes of VMamba's and GrootV's tiny models."""
    widths = [96, 192, 384, 768] if inner == 128 else [80, 160, 320, 640]
    head = ChangeMambaHead(widths, ssm_ratio=inner / 128, **mixer)
    ss2d = (
        128 * inner * gated  # projection in
        + 9 * inner  # depthwise convolution
        + 4 * inner * (8 + 2)  # steps, B and C of four routes
        + 4 * inner * (8 + 1)  # steps' projection and bias
        + 4 * inner * 2  # A, D
        + 2 * inner  # norm
        + inner * 128  # projection out
    )
    block = ss2d + 2 * 2 * 128 + (128 * 512 + 512) + (512 * 128 + 128)
    merge = 5 * 128 * 128 + 2 * 128
    stages = sum(
        4 * width * 128 + 3 * (128 + block) + merge for width in widths
    )
    residuals = 3 * 2 * (9 * 128 * 128 + 2 * 128)
    assert count(head) == stages + residuals + 128 * 2 + 2


def test_arguments_reach_every_block():
    head = build_head(
        d_state=3,
        ssm_ratio=2.0,
        mlp_ratio=1.5,
        gate=True,
        conv_bias=True,
        ssm_init='uniform',
        routes=('h', 'v_flip'),
        drop_path_rate=0.3,
        with_cp=True,
    )
    mixers = [m for m in head.modules() if isinstance(m, SS2D)]
    assert len(mixers) == 12
    for mixer in mixers:
        assert mixer.d_state == 3 and mixer.gate_proj is not None
        assert mixer.routes == ('h', 'v_flip')
        assert mixer.conv2d.bias is not None
        assert mixer.Ds.numel() == 2 * 16
    for block in head.modules():
        if isinstance(block, VSSBlock):
            assert block.with_cp
            assert block.ffn.feedforward_channels == 12
    drops = [m.drop_prob for m in head.modules() if isinstance(m, DropPath)]
    assert drops == [0.3] * 24
    usual = [m for m in build_head().modules() if isinstance(m, DropPath)]
    assert [m.drop_prob for m in usual] == [0.1] * 24


def test_no_ffn_and_other_stages():
    head = build_head(mlp_ratio=0, in_index=(1, 2, 3, 4))
    assert all(
        m.ffn is None for m in head.modules() if isinstance(m, VSSBlock)
    )
    pairs = pair_up(*build_maps(*SIZES))
    unused = torch.full((2, 3, 9, 9), torch.nan)
    assert head([unused, *pairs]).isfinite().all()


def test_single_images_are_refused():
    before, _ = build_maps(*SIZES)
    with pytest.raises(ValueError, match=r'\[8, 16, 24, 32\].*\[4, 8, 12, 16'):
        build_head()(before)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match='state_dim'):
        ChangeMambaHead(WIDTHS, state_dim=16)


def test_two_classes_need_no_advice():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        head = ChangeMambaHead(WIDTHS, 8)
    assert not any('out_channels' in str(each.message) for each in caught)
    assert head.out_channels == head.num_classes == 2
    assert head.dropout is None


def test_loss_is_cross_entropy_and_three_quarters_of_lovasz():
    """Lovasz softmax of sure predictions is 1 - IoU, the classes' mean."""
    cfg = Config.fromfile(BASE).model.decode_head
    cfg.update(in_channels=WIDTHS, channels=8, norm_cfg=dict(type='BN'))
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(cfg)
    # Two images, since the loss is of all pixels together.
    truth = torch.tensor([[[0, 0, 1, 255]], [[1, 1, 0, 255]]])
    found = torch.tensor([[[0, 1, 1, 1]], [[1, 1, 1, 0]]])
    logits = 50.0 * F.one_hot(found, 2).permute(0, 3, 1, 2)
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label[None]))
        for label in truth
    ]
    losses = head.loss_by_feat(logits, samples)
    # Unchanged: 1 of 3. Changed: 3 of 5. Ignored pixels count nowhere.
    lovasz = 0.75 * (2 / 3 + 2 / 5) / 2
    assert losses['loss_lovasz'].item() == pytest.approx(lovasz, abs=1e-4)
    # Two of six are wrong, by 50.
    assert losses['loss_ce'].item() == pytest.approx(50 * 2 / 6, rel=1e-4)
