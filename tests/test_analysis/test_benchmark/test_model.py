"""Any backbone is built and measured, bad input is refused at once."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from mmssm import VMamba
from mmssm.analysis.benchmark import measure as benchmark
from mmssm.analysis.benchmark import model as benchmark_model
from mmssm.analysis.benchmark.model import backbones, bench_model

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / 'configs/_base_/8xb128_in1k.py'
MINI = dict(embed_dims=8, depths=(1, 1, 1, 1))


@pytest.fixture(autouse=True)
def one_call_per_turn(monkeypatch):
    monkeypatch.setattr(benchmark, 'MIN_SECONDS', 0)


class Spy(nn.Conv2d):
    """Notes how it is called."""

    def __init__(self, seen):
        super().__init__(3, 5, 1)
        self.seen = seen

    def forward(self, x):
        y = super().forward(x)
        modes = self.training, torch.is_inference_mode_enabled(), y.dtype
        self.seen.append((tuple(x.shape), *modes, x.sum().item()))
        return (y, y[:, :2]) if len(self.seen) % 2 else y


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('amp', [False, True])
def test_sizes_modes_and_facts(train, amp):
    seen = []
    builders = dict(mini=lambda size: VMamba(MINI), spy=lambda size: Spy(seen))
    report = bench_model(builders, [8, 16], 2, 1, train=train, amp=amp)
    assert [case.name for case in report.cases] == ['8 px', '16 px']
    for case, shape in zip(report.cases, [(2, 3, 8, 8), (2, 3, 16, 16)]):
        assert [r.name for r in case.results] == ['mini', 'spy']
        phase = 'forward + backward' if train else 'forward'
        assert all(list(r.seconds) == [phase] for r in case.results)
        assert case.facts['params']['spy'] == 20
        assert {call[0] for call in seen[:4]} == {shape}
        del seen[:4]
    assert not seen
    assert 'growth' in report.tables[2].lower()


def test_images_are_the_same_each_time():
    seen = []
    for _ in range(2):
        bench_model(dict(spy=lambda size: Spy(seen)), [8], rounds=1)
    assert seen[0] == seen[4]
    shape, training, inference, dtype, _ = seen[0]
    assert (training, inference, dtype) == (False, True, torch.float32)
    bench_model(
        dict(spy=lambda size: Spy(seen)), [8], 1, 1, train=True, amp=True
    )
    assert seen[-1][1:4] == (True, False, torch.bfloat16)


def test_training_leaves_no_gradients_and_counts_their_memory():
    wide = nn.Conv2d(3, 4096, 1)
    case = bench_model(dict(wide=lambda size: wide), [4], 1, 1, True).cases[0]
    assert all(p.grad is None for p in wide.parameters())
    gradients = sum(4 * p.numel() for p in wide.parameters())
    assert case.results[0].peak > gradients


def test_a_failing_companion_is_noted_and_ours_is_not():
    def build(size):
        return nn.Linear(7, 7)

    ours = dict(mini=lambda size: VMamba(MINI))
    report = bench_model({**ours, 'odd': build}, [32], rounds=1)
    assert '- odd: failed: RuntimeError' in report.tables[0]
    with pytest.raises(RuntimeError):
        bench_model({'odd': build, **ours}, [32], rounds=1)


def test_backbones_by_arch_and_config():
    config = ROOT / 'configs/mini/mask-rcnn_vmamba-mini_mini-coco.py'
    built = backbones(['tiny', 'VMamba:tiny-m2'], [str(config)])
    names = ['VMamba tiny', 'VMamba tiny-m2', config.stem]
    assert list(built) == names
    models = [built[name](64) for name in names]
    assert [type(m).__name__ for m in models] == ['VMamba'] * 3
    assert models[1].arch_name == 'tiny-m2'
    assert len(models[2].out_indices) == 4


@pytest.mark.parametrize(
    'name, channels',
    [('swin-tiny', 768), ('convnext-tiny', 768), ('resnet50', 2048)],
)
def test_companions_of_mmpretrain_give_maps(name, channels, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    built = backbones(beside=[name])
    assert list(built) == [f'{name} (mmpretrain)']
    model = benchmark_model._build(built, 64, False, 'cpu').popitem()[1]
    (out,) = model(torch.rand(1, 3, 64, 64))
    assert out.shape == (1, channels, 2, 2)


def test_timm_comes_first_and_without_its_head(monkeypatch):
    asked = []

    class Model(nn.Module):
        def forward(self, x):
            raise AssertionError('the head')

        def forward_features(self, x):
            return x

    def create_model(*args, **kwargs):
        asked.append((args, kwargs))
        return Model()

    timm = ModuleType('timm')
    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, 'timm', timm)
    built = backbones(beside=['swin-tiny', 'resnet50'])
    assert list(built) == ['swin-tiny (timm)', 'resnet50 (timm)']
    image = torch.rand(1, 3, 96, 96)
    assert all(build(96)(image) is image for build in built.values())
    swin = 'swin_tiny_patch4_window7_224'
    assert asked == [
        ((swin,), dict(num_classes=0, img_size=96)),
        (('resnet50',), dict(num_classes=0)),
    ]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(archs=['tiny-x']), "no arch 'tiny-x'; known: tiny-s1l8"),
        (dict(archs=['Vmamba:tiny']), "no backbone 'Vmamba'; known: .*VMamba"),
        (dict(beside=['vgg']), "no backbone 'vgg' to put beside; known: swin"),
        (dict(configs=['no.py']), 'config no.py does not exist'),
        (dict(configs=[str(RECIPE)]), 'has no backbone'),
    ],
)
def test_unknown_backbones(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbones(**arguments)


def test_companions_need_a_library(monkeypatch):
    for name in ('timm', 'mmpretrain.models'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match='pip install timm'):
        backbones(beside=['resnet50'])


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(sizes=[224, 3]), 'at least 4 pixels wide, got 3'),
        (dict(batch=0), 'at least one image, got 0'),
        (dict(rounds=0), 'at least one round is needed, got 0'),
    ],
)
def test_bad_settings(arguments, message):
    builders = dict(mini=lambda size: VMamba(MINI))
    with pytest.raises(ValueError, match=message):
        bench_model(builders, **arguments)


def test_building_uses_a_seed_and_leaves_the_callers():
    before = torch.get_rng_state()
    models = [
        benchmark_model._build(
            dict(mini=lambda size: VMamba(MINI)), 32, False, 'cpu'
        )['mini']
        for _ in range(2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    weights = [next(m.parameters()) for m in models]
    assert torch.equal(*weights)
    assert not models[0].training


def test_vmambas_own_code(monkeypatch):
    built = nn.Conv2d(3, 5, 1)
    module = ModuleType('vmamba')
    module.vmamba_tiny_s1l8 = lambda: built
    monkeypatch.setitem(sys.modules, 'vmamba', module)
    ((name, build),) = backbones(beside=['vmamba-original']).items()
    assert 'own code' in name and build(224) is built
    monkeypatch.setitem(sys.modules, 'vmamba', None)
    with pytest.raises(ValueError, match='needs vmamba.py of github.com'):
        backbones(beside=['vmamba-original'])
