"""The libraries' tools and inferencers refuse the file of another model."""

import copy
from pathlib import Path

import mmdet.apis
import mmpretrain
import mmseg.apis
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, load_checkpoint
from torch import nn

from mmssm.backbones import FractalMamba, Vim, VMamba
from mmssm.utils import CheckpointError
from mmssm.utils.config import complete_model, load_config

CONFIGS = Path(__file__).parents[2] / 'configs' / 'mini'
TASKS = {
    'detector': 'mask-rcnn_vmamba-mini_mini-coco.py',
    'segmentor': 'vmamba-mini_upernet_mini-ade20k.py',
    'classifier': 'vmamba-mini_mini-in1k.py',
}
MINI = dict(embed_dims=16, depths=(1, 1, 1, 1))
VIM = dict(embed_dims=32, depth=1)


def config(task):
    cfg = load_config(str(CONFIGS / TASKS[task]))
    cfg.model = complete_model(cfg)
    return cfg


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A file of each task's model, as training writes it."""
    folder = tmp_path_factory.mktemp('files')
    for task in TASKS:
        cfg = config(task)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            state = MODELS.build(cfg.model).state_dict()
        meta = dict(dataset_meta=dict(classes=['a'], palette=[[0, 0, 0]]))
        torch.save(dict(meta=meta, state_dict=state), folder / f'{task}.pth')
    return lambda task: str(folder / f'{task}.pth')


def init_detector(cfg, file):
    return mmdet.apis.init_detector(cfg, file, 'random', device='cpu')


def init_segmentor(cfg, file):
    return mmseg.apis.init_model(cfg, file, device='cpu')


def get_classifier(cfg, file):
    return mmpretrain.get_model(cfg, pretrained=file, device='cpu')


def infer_with(inferencer):
    def build(cfg, file):
        return inferencer(cfg, file, device='cpu').model

    return build


def infer_classes(cfg, file):
    return mmpretrain.ImageClassificationInferencer(
        cfg, pretrained=file, device='cpu', classes=['a']
    ).model


READERS = [
    ('detector', init_detector),
    ('detector', infer_with(mmdet.apis.DetInferencer)),
    ('segmentor', init_segmentor),
    ('segmentor', infer_with(mmseg.apis.MMSegInferencer)),
    ('classifier', get_classifier),
    ('classifier', infer_classes),
]


@pytest.mark.parametrize('task, read', READERS)
def test_a_file_of_another_task_is_refused(task, read, files):
    for other in TASKS:
        if other != task:
            with pytest.raises(
                CheckpointError, match=f'{other}.pth is of another'
            ):
                read(config(task), files(other))
    model = read(config(task), files(task))
    saved = torch.load(files(task))['state_dict']
    for key, value in model.state_dict().items():
        assert torch.equal(value, saved[key]), key


@pytest.mark.parametrize('task', TASKS)
def test_a_librarys_own_test_tool_refuses_it(
    task, files, mini_tasks, tmp_path
):
    """It is mmengine's Runner; mim's test calls it."""
    root, _ = mini_tasks
    wrong = files('segmentor' if task != 'segmentor' else 'classifier')
    cfg = config(task)
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), load_from=wrong))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with pytest.raises(CheckpointError, match='rest of the model would'):
            Runner.from_cfg(cfg).test()


class Net(nn.Module):
    """A model of any library, as mmengine loads it."""

    def __init__(self, backbone, **heads):
        super().__init__()
        self.backbone = backbone
        for name, head in heads.items():
            self.add_module(name, head)


def save(path, **parts):
    state = nn.ModuleDict(parts).state_dict()
    torch.save(dict(meta=dict(), state_dict=state), path)
    return str(path)


@pytest.mark.parametrize('stage', ['test', 'training'])
def test_a_file_without_the_backbone(tmp_path, stage):
    file = save(
        tmp_path / 'resnet.pth',
        backbone=nn.Sequential(nn.Linear(1, 1)),
        bbox_head=nn.Linear(1, 1),
    )
    net = Net(VMamba(MINI), bbox_head=nn.Linear(1, 1))
    if stage == 'test':
        with pytest.raises(
            CheckpointError, match=r'none of .*; it has 0.weig'
        ):
            load_checkpoint(net, file)
        return
    net.backbone.init_weights()
    before = copy.deepcopy(net.backbone.state_dict())
    text = warnings_of(load_checkpoint, net, file)
    assert f'VMamba: {file} has only 0 of its 94 tensors' in text
    assert torch.equal(
        net.bbox_head.weight,
        torch.load(file)['state_dict']['bbox_head.weight'],
    )
    for key, value in net.backbone.state_dict().items():
        assert torch.equal(value, before[key])


def warnings_of(call, *arguments):
    """What a call logs as warnings, by any logger of mmengine's."""
    records = []
    logger = MMLogger.get_instance('part_loading')
    logger.handlers[0].emit = lambda record: records.append(record)
    call(*arguments)
    return '\n'.join(
        record.getMessage() for record in records if record.levelname != 'INFO'
    )


def test_a_part_of_the_backbone_is_a_warning_of_one_line(tmp_path):
    small = VMamba(dict(MINI, depths=(1, 1, 1, 1)))
    file = save(tmp_path / 'small.pth', backbone=small)
    net = Net(VMamba(dict(MINI, depths=(1, 1, 2, 1))))
    text = warnings_of(load_checkpoint, net, file)
    (line,) = [t for t in text.split('\n') if t.startswith('VMamba')]
    assert '94 of its 112 tensors (18 are missing, 0 have' in line
    assert 'first: stages.2.blocks.1.norm1.weight' in line
    assert 'VMamba' not in warnings_of(load_checkpoint, Net(small), file)


def test_norms_of_outputs_may_be_missing_in_training_only(tmp_path):
    file = save(tmp_path / 'a.pth', backbone=VMamba(MINI))
    net = Net(VMamba(MINI, out_indices=(0, 3)))
    assert '94 of its 96' in warnings_of(load_checkpoint, net, file)
    net = Net(VMamba(MINI, out_indices=(0, 3)))
    net.backbone.init_weights()
    assert 'VMamba' not in warnings_of(load_checkpoint, net, file)


def test_classifiers_without_a_head_give_features(tmp_path):
    """mmpretrain's get_model(..., head=None) loads a classifier's file."""
    source = VMamba(MINI)
    file = save(tmp_path / 'a.pth', backbone=source, head=nn.Linear(1, 1))
    net = Net(VMamba(MINI))
    load_checkpoint(net, file)
    assert torch.equal(
        net.backbone.stem.conv1.weight, source.stem.conv1.weight
    )


@pytest.mark.parametrize(
    'family, arch, maps',
    [
        (VMamba, MINI, dict(out_indices=(2, 3))),
        # Every norm is in a classifier's file, too.
        (FractalMamba, MINI, dict(out_indices=(2, 3))),
        (Vim, VIM, dict(out_type='featmap')),  # one map, with its own norm
    ],
)
def test_detectors_and_segmentors_do_not_take_it(tmp_path, family, arch, maps):
    file = save(
        tmp_path / 'a.pth', backbone=family(arch), head=nn.Linear(1, 1)
    )
    with pytest.raises(CheckpointError, match=r'it has head\.\*'):
        load_checkpoint(Net(family(arch, **maps)), file)


def test_an_auxiliary_head_may_be_left_out(tmp_path):
    heads = dict(decode_head=nn.Linear(1, 1), auxiliary_head=nn.Linear(1, 1))
    file = save(tmp_path / 'a.pth', backbone=VMamba(MINI), **heads)
    load_checkpoint(Net(VMamba(MINI), decode_head=nn.Linear(1, 1)), file)


def test_a_part_of_a_detector_is_no_other_model(tmp_path):
    heads = dict(rpn_head=nn.Linear(1, 1), roi_head=nn.Linear(1, 1))
    file = save(tmp_path / 'a.pth', backbone=VMamba(MINI), **heads)
    for name in heads:
        load_checkpoint(Net(VMamba(MINI), **{name: nn.Linear(1, 1)}), file)
    with pytest.raises(CheckpointError, match=r'it has roi_head\.\*, which'):
        load_checkpoint(Net(VMamba(MINI), head=nn.Linear(1, 1)), file)


def test_heads_may_be_loaded_alone_once_the_backbone_has_weights(tmp_path):
    heads = save(tmp_path / 'heads.pth', decode_head=nn.Linear(1, 1))
    backbone = save(tmp_path / 'backbone.pth', backbone=VMamba(MINI))
    net = Net(VMamba(MINI), decode_head=nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match='none of the 94 tensors'):
        load_checkpoint(net, heads)
    net.backbone.load_pretrained(backbone)
    load_checkpoint(net, heads)
    net = Net(VMamba(MINI), decode_head=nn.Linear(1, 1))
    load_checkpoint(net, backbone)
    load_checkpoint(net, heads)


def test_pytorchs_own_loading_is_left_alone():
    net = Net(VMamba(MINI), head=nn.Linear(1, 1))
    net.load_state_dict({}, strict=False)
    net.load_state_dict(
        dict(net.head.state_dict(prefix='head.')), strict=False
    )
    with pytest.raises(RuntimeError):
        net.load_state_dict({})
    other = Net(VMamba(MINI), bbox_head=nn.Linear(1, 1))
    other.load_state_dict(net.state_dict(), strict=False)
    bare = VMamba(MINI)
    with pytest.raises(RuntimeError, match='size mismatch'):
        bare.load_state_dict(VMamba(MINI, in_channels=4).state_dict())


def test_averaged_weights_may_be_trained_from_a_part(tmp_path):
    """EMAHook copies the model before it is initialized."""
    file = save(
        tmp_path / 'a.pth', backbone=VMamba(MINI), head=nn.Linear(1, 1)
    )
    net = Net(VMamba(MINI, out_indices=(0, 3)), bbox_head=nn.Linear(1, 1))
    average = ExponentialMovingAverage(net)
    load_checkpoint(average.module, file)
    with pytest.raises(CheckpointError, match=r'it has head\.\*'):
        load_checkpoint(net, file)


@pytest.mark.parametrize('channels', [1, 6])
def test_stems_are_fitted_to_train_and_never_to_test(tmp_path, channels):
    source = VMamba(MINI)
    file = save(tmp_path / 'a.pth', backbone=source)
    net = Net(VMamba(MINI, in_channels=channels))
    assert '1 have another shape; first: stem.conv1.weight' in warnings_of(
        load_checkpoint, net, file
    )
    net = Net(VMamba(MINI, in_channels=channels))
    net.backbone.init_weights()
    assert 'VMamba' not in warnings_of(load_checkpoint, net, file)
    torch.testing.assert_close(
        net.backbone.stem.conv1.weight.sum(1), source.stem.conv1.weight.sum(1)
    )


def test_positions_are_fitted_to_train_and_to_test(tmp_path):
    source = Vim(VIM, img_size=64)
    file = save(tmp_path / 'a.pth', backbone=source)
    x = torch.rand(1, 3, 96, 96)
    for trains in (True, False):
        net = Net(Vim(VIM, img_size=96))
        if trains:
            net.backbone.init_weights()
        load_checkpoint(net, file)
        with torch.no_grad():
            got, want = net.backbone.eval()(x), source.eval()(x)
        torch.testing.assert_close(got, want)
