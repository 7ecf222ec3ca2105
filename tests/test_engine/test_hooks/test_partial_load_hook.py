"""The log tells what load_from takes; a file of which nothing fits fails."""

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmssm.apis import train
from mmssm.backbones import Vim, VMamba
from mmssm.engine import PartialLoadHook
from mmssm.utils import CheckpointError

MINI = dict(embed_dims=16, depths=(1, 1, 1, 1))


class Net(BaseModel):
    def __init__(self, backbone, classes=4, **heads):
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(2, classes)
        for name, head in heads.items():
            self.add_module(name, head)

    def forward(self, inputs):
        return inputs


def load(folder, net, content, hooks=(), **options):
    """Load a file as Runner.train does; returns what the hook logs."""
    file = folder / 'file.pth'
    torch.save(content, file)
    runner = Runner(net, str(folder / 'out'), load_from=str(file), **options)
    for hook in (PartialLoadHook(), *hooks):
        runner.register_hook(hook)
    lines = []
    runner.logger.handlers[0].emit = lambda r: lines.append(r.getMessage())
    runner.call_hook('before_run')
    net.init_weights()
    runner.load_or_resume()
    return [t for t in lines if t.startswith('load_from')]


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('bare', [True, False])
def test_another_head(tmp_path, bare, prefix):
    source = Net(VMamba(MINI), mask=nn.Linear(2, 2))
    state = {prefix + k: v for k, v in source.state_dict().items()}
    net = Net(VMamba(MINI, out_indices=(0, 3)), classes=7)
    (line,) = load(
        tmp_path, net, state if bare else dict(meta={}, state_dict=state)
    )
    assert line.startswith(f'load_from: {tmp_path}/file.pth: loaded 94 of 98')
    assert line.endswith(
        'not in the file: backbone.norm0.* (2); not in the model: mask.* (2); '
        'other shape: fc.weight (4, 2) instead of (7, 2), fc.bias (4,) '
        'instead of (7,)'
    )
    for key, value in source.backbone.state_dict().items():
        assert torch.equal(net.backbone.state_dict()[key], value), key


def test_nothing_fits(tmp_path):
    source = Net(VMamba(MINI))
    state = source.backbone.state_dict()  # its keys lack 'backbone.'
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, Net(VMamba(MINI)), state)
    text = str(caught.value)
    assert f"are in {tmp_path}/file.pth (its first key: 'stem" in text
    assert 'set model.backbone.init_cfg instead' in text and '\n' not in text


class Student(BaseModel):
    """A model that has another one as a part."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, inputs):
        return inputs


@pytest.mark.parametrize('place', ['backbone', 'student.backbone'])
def test_other_channels_and_image_sizes(tmp_path, place):
    """The average of EMAHook, which loads the file too, gets the same."""
    arch = dict(embed_dims=32, depth=1)
    source = Net(Vim(arch, img_size=64))
    net = Net(Vim(arch, img_size=96, in_channels=6))
    if place != 'backbone':
        source, net = Student(source), Student(net)
    average = EMAHook()
    (line,) = load(
        tmp_path, net, dict(state_dict=source.state_dict()), [average]
    )
    number = len(source.state_dict())
    assert f'loaded {number} of {number} tensors' in line
    old = source.get_submodule(place).eval()
    for model in (net, average.ema_model.module):
        new = model.get_submodule(place).eval()
        mean = old.stem.conv.weight.mean(1, keepdim=True) * 3 / 6
        torch.testing.assert_close(
            new.stem.conv.weight, mean.expand(-1, 6, -1, -1)
        )
        assert new.pos_embed.shape == (1, 37, 32)
        x = torch.rand(1, 1, 96, 96)
        with torch.no_grad():
            torch.testing.assert_close(
                new(x.expand(-1, 6, -1, -1)), old(x.expand(-1, 3, -1, -1))
            )


def test_a_resumed_run_is_left_alone(tmp_path):
    class Run:
        _resume = True

    PartialLoadHook().after_load_checkpoint(Run(), {})


def test_training_tells_it(toy_config, capsys):
    options = {'train_cfg.max_epochs': 1}
    train(toy_config, work_dir='out', options=options)
    assert 'load_from: ' not in capsys.readouterr().out
    options['load_from'] = 'out/epoch_1.pth'
    hooks = [dict(type='mmssm.engine.PartialLoadHook')]
    for custom in ([], hooks):  # told once in any case
        options['custom_hooks'] = custom
        train(toy_config, work_dir='other', options=options)
        text = capsys.readouterr()
        assert (text.out + text.err).count('load_from: out/epoch_1') == 1
    torch.save(dict(state_dict=dict(a=torch.zeros(1))), 'wrong.pth')
    options['load_from'] = 'wrong.pth'
    with pytest.raises(CheckpointError, match='only 0 of the 2 tensors'):
        train(toy_config, work_dir='wrong', options=options)
