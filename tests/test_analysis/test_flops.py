import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmssm.analysis.flops import (
    count_model,
    scan_counts,
)
from mmssm.apis.flops import count_config
from mmssm.apis.tasks import find_task
from mmssm.ops import (
    native,
    routed_selective_scan,
    selective_scan,
    state_fusion,
    tree_scan,
)
from mmssm.scans import CROSS, routes

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs' / 'vmamba'

# arch: parameters of the original, FLOPs that its authors publish (in G).
PUBLISHED = {
    'vanilla-tiny': (22_893_448, 5.6),
    'vanilla-small': (44_417_416, 11.2),
    'vanilla-base': (76_254_056, 18.0),
    'tiny-s2l5': (30_705_832, 4.9),
    'small-s2l15': (50_147_752, 8.7),
    'base-s2l15': (88_557_800, 15.4),
    'tiny-s1l8': (30_249_064, 4.9),
    'small-s1l20': (49_012_840, 8.6),
    'base-s1l20': (86_614_504, 15.2),
}


class Scan(nn.Module):
    """A module whose forward pass is one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.fixture(autouse=True)
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('arch', PUBLISHED)
def test_classifiers_cost_what_their_authors_publish(arch):
    params, flops = PUBLISHED[arch]
    cfg = Config.fromfile(CONFIGS / f'vmamba-{arch}_8xb128_in1k.py')
    result = count_config(cfg)
    assert result.shape == (224, 224)
    assert result.params == params
    assert result.flops == pytest.approx(flops * 1e9, rel=0.01)
    assert sum(result.flops_by_operator.values()) == result.flops
    assert 0.8 * result.flops < result.macs < result.flops


@pytest.mark.parametrize(
    ('config', 'shape', 'params', 'flops'),
    [
        (
            'mask-rcnn_vmamba-tiny-s1l8_fpn_1x_coco',
            (800, 1280),
            49.755e6,
            271_163_376_640,
        ),
        (
            'vmamba-tiny-s1l8-in1k-pre_upernet_4xb4-160k_ade20k-512x512',
            (512, 2048),
            61_902_572,
            948_780_189_696,
        ),
    ],
    ids=['detector', 'segmentor'],
)
def test_whole_models_cost_what_their_authors_count(
    config, shape, params, flops
):
    """The figures are noted in the authors' own counting script."""
    result = count_config(Config.fromfile(CONFIGS / f'{config}.py'))
    assert result.shape == shape
    assert result.params == pytest.approx(params, rel=1e-5)
    assert result.flops == pytest.approx(flops, rel=1e-4)


@pytest.mark.parametrize(
    ('config', 'params', 'published', 'flops'),
    [
        ('fractal-mamba-tiny_8xb128_in1k', 29_958_600, 4.8, 4_813_622_400),
        (
            'mask-rcnn_fractal-mamba-tiny_fpn_1x_coco',
            48_593_744,
            266,
            268_121_328_640,
        ),
    ],
    ids=['classifier', 'detector'],
)
def test_fractal_mamba_costs_what_its_authors_publish(
    config, params, published, flops
):
    path = ROOT / 'configs' / 'fractal_mamba' / f'{config}.py'
    result = count_config(Config.fromfile(path))
    assert (result.params, result.flops) == (params, flops)
    assert result.flops == pytest.approx(published * 1e9, rel=0.03)


def test_classifiers_are_counted_at_the_size_of_their_tests():
    name = 'vmamba-tiny-s1l8_8xb128_in1k'
    for suffix, side in (('', 224), ('-384px', 384), ('-1024px', 1024)):
        cfg = Config.fromfile(CONFIGS / f'{name}{suffix}.py')
        assert find_task(cfg).input_shape(cfg) == (side, side)
    cfg.test_dataloader.dataset.pipeline = []
    assert find_task(cfg).input_shape(cfg) == (224, 224)
    cfg.pop('test_dataloader')
    assert find_task(cfg).input_shape(cfg) == (224, 224)


@pytest.mark.parametrize('crop', [512, 640])
def test_segmentors_are_counted_at_the_size_of_their_crops(crop):
    name = 'vmamba-small-s2l15-in1k-pre_upernet_4xb4-160k_ade20k'
    cfg = Config.fromfile(CONFIGS / f'{name}-{crop}x{crop}.py')
    assert find_task(cfg).input_shape(cfg) == (crop, 4 * crop)


def test_change_detectors_are_counted_on_a_crop_of_a_pair():
    cfg = Config.fromfile(
        CONFIGS / 'changemamba_vmamba-tiny-s1l8_levir-cd-plus.py'
    )
    result = count_config(cfg)
    assert result.shape == (256, 256)
    assert result.channels == 6
    # The backbone runs twice, its weights are there once.
    with DefaultScope.overwrite_default_scope('mmseg'):
        backbone = MODELS.build(cfg.model.backbone).eval()
        decoder = MODELS.build(cfg.model.decode_head).eval()
    encoder, _, _ = count_model(backbone, (torch.ones(1, 3, 256, 256),))
    weights = sum(p.numel() for p in backbone.parameters())
    maps = [torch.ones(1, 2 * 96 * 2**i, 64 >> i, 64 >> i) for i in range(4)]
    decoder = revert_sync_batchnorm(decoder)
    decoding, _, _ = count_model(decoder, (maps,))
    assert result.flops == 2 * encoder + decoding
    weights += sum(p.numel() for p in decoder.parameters())
    assert result.params == weights


def test_scan_formula():
    # 2 sequences of 3 tokens, 5 channels, 7 states.
    counts = scan_counts(2, 3, 5, 7)
    assert counts['selective_scan'] == 2 * 3 * 5 * (9 * 7 + 1)
    counts = scan_counts(2, 3, 5, 7, with_skip=False)
    assert counts['selective_scan'] == 2 * 3 * 5 * 9 * 7
    counts = scan_counts(2, 3, 5, 7, with_output=False, with_skip=False)
    assert counts['selective_scan'] == 2 * 3 * 5 * 7 * 7


def test_selective_scan_is_counted():
    batch, channels, tokens, states = 2, 6, 5, 3

    def scan(x):
        B = torch.randn(batch, states, tokens)
        A = -torch.rand(channels, states)
        return selective_scan(x, x, A, B, B, torch.ones(channels))

    inputs = (torch.randn(batch, channels, tokens),)
    flops, macs, by_operator = count_model(Scan(scan), inputs)
    cells = batch * channels * tokens
    assert by_operator == {'selective_scan': cells * (9 * states + 1)}
    assert flops == cells * (9 * states + 1)
    assert macs == cells * (4 * states + 2)


@pytest.mark.parametrize('with_projection', [True, False])
def test_routed_scan_is_counted_over_all_routes(with_projection):
    batch, height, width, channels, states, rank = 2, 3, 4, 6, 5, 2
    tokens, num_routes = height * width, 4
    dt_channels = rank if with_projection else channels
    weight = torch.randn(num_routes, channels, rank)

    def scan(x):
        B = torch.randn(batch, tokens, num_routes, states)
        return routed_selective_scan(
            x,
            torch.randn(batch, tokens, num_routes, dt_channels),
            -torch.rand(num_routes, channels, states),
            B,
            B,
            torch.ones(num_routes, channels),
            routes=routes(CROSS, height, width),
            dt_weight=weight if with_projection else None,
        )

    inputs = (torch.randn(batch, tokens, channels),)
    _, macs, by_operator = count_model(Scan(scan), inputs)
    cells = batch * tokens * num_routes * channels
    expected = {'selective_scan': cells * (9 * states + 1)}
    projection = cells * rank if with_projection else 0
    if with_projection:
        expected['dt_projection'] = projection
    assert by_operator == expected
    assert macs == cells * (4 * states + 2) + projection


@pytest.mark.parametrize('with_readout', [True, False])
def test_state_fusion_is_counted(with_readout):
    channels = 6

    def fuse(x):
        readout = (x[..., 0], torch.ones(channels), x) if with_readout else ()
        return state_fusion(
            x, torch.ones(3, channels, 3, 3), torch.ones(3), *readout
        )

    inputs = (torch.randn(2, 3, 4, channels),)
    flops, macs, by_operator = count_model(Scan(fuse), inputs)
    cells = 2 * 3 * 4 * channels
    # As its three filters; the tool does 25, and C and D by itself.
    assert by_operator == {'state_fusion': 27 * cells}
    assert flops == 27 * cells
    assert macs == (25 + 2 * with_readout) * cells


@pytest.mark.parametrize('with_projection', [True, False])
def test_tree_scan_is_counted(with_projection):
    batch, tokens, channels, rank = 2, 12, 6, 3
    parents = torch.arange(-1, tokens - 1, dtype=torch.int32)
    weight = torch.randn(channels, rank)

    def scan(x):
        return tree_scan(
            x,
            torch.randn(batch, tokens, rank if with_projection else channels),
            -torch.rand(channels),
            torch.randn(batch, tokens),
            parents=parents,
            dt_weight=weight if with_projection else None,
        )

    inputs = (torch.randn(batch, tokens, channels),)
    flops, macs, by_operator = count_model(Scan(scan), inputs)
    cells = batch * tokens * channels
    projection = cells * rank if with_projection else 0
    # Two scans for states of one state each.
    assert by_operator['tree_scan'] == 2 * 7 * cells
    assert by_operator.get('dt_projection', 0) == projection
    assert flops == 14 * cells + projection
    assert macs == 6 * cells + projection


def test_states_alone_count_less():
    channels, tokens = 6, 12

    def scan(x):
        return routed_selective_scan(
            x,
            torch.randn(2, tokens, 1, channels),
            -torch.rand(1, channels, 1),
            torch.randn(2, tokens, 1, 1),
            routes=routes(('h',), 3, 4),
            output='states',
        )

    inputs = (torch.randn(2, tokens, channels),)
    flops, macs, _ = count_model(Scan(scan), inputs)
    cells = 2 * tokens * channels
    assert flops == 7 * cells
    assert macs == 4 * cells


def test_detector_reports_its_proposals():
    cfg = Config.fromfile(
        CONFIGS / 'mask-rcnn_vmamba-tiny-s1l8_fpn_1x_coco.py'
    )
    result = count_config(cfg, (96, 128))
    assert result.shape == (96, 128)
    assert 0 < result.proposals <= cfg.model.test_cfg.rpn.max_per_img
    assert result.flops_by_operator['selective_scan'] > 0
    # The same weights, hence the same proposals, in every run.
    assert count_config(cfg, (96, 128)) == result


def test_counting_leaves_no_trace_in_the_random_state():
    cfg = Config.fromfile(CONFIGS / 'vmamba-tiny-s1l8_8xb128_in1k.py')
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    count_config(cfg, (32, 32))
    assert torch.equal(torch.rand(1), expected)


def test_unknown_scope_is_refused():
    cfg = Config(dict(default_scope='mmpose', model=dict(type='VMamba')))
    with pytest.raises(ValueError, match="'mmpose'.*mmdet, mmseg, mmpretrain"):
        count_config(cfg)


def test_missing_extension_is_named(monkeypatch):
    monkeypatch.setattr(native, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='native ops: build it with'):
        count_model(nn.Identity(), (torch.ones(1),))


def test_tool_prints_json_alone():
    config = CONFIGS / 'vmamba-tiny-s1l8_8xb128_in1k.py'
    command = [
        sys.executable,
        ROOT / 'tools/analysis_tools/get_flops.py',
        config,
        '--shape',
        '64',
        '96',
        '--json',
    ]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    result = json.loads(output)
    assert result['params'] == 30_249_064
    assert result['shape'] == [64, 96]
    assert result['flops'] > result['macs'] > 0
    assert result['convention'].startswith('paper')
