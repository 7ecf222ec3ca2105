"""docs/your_own_data.md: its configs and commands work as they stand.

Commands run in a folder with a copy of the page's configs, on small sets of
drawn shapes. Where a model is needed, it is a small one: of detectors, the
page's own; the others are below.
"""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from drawn_shapes import (
    NAMES,
    write_class_folders,
    write_coco_set,
    write_label_maps,
)
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from PIL import Image

from mmssm.apis import train
from mmssm.utils import UserError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'your_own_data.md').read_text()
CONFIGS = dict(
    re.findall(r'`my/(\w+)\.py`:\n\n```python\n(.*?)```', PAGE, re.S)
)
COMMANDS = re.findall(
    r'^python (tools/\S+ .*)$',
    '\n'.join(re.findall(r'```shell\n(.*?)```', PAGE, re.S)),
    re.M,
)
TINY = """
backbone = dict(
    arch=dict(_delete_=True, embed_dims=16, depths=(1, 1, 1, 1)),
    init_cfg=None,
)
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
"""
SMALL = dict(
    # Narrower still; an untrained detector finds much, and draws it.
    shapes="""
_base_ = '../my/shapes_small.py'
extractor = dict(out_channels=16)
model = dict(
    neck=dict(out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=extractor,
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=extractor,
        mask_head=dict(in_channels=16, conv_out_channels=16),
    ),
    train_cfg=dict(
        rpn_proposal=dict(max_per_img=40),
        rcnn=dict(sampler=dict(num=16)),
    ),
    test_cfg=dict(rpn=dict(max_per_img=20), rcnn=dict(max_per_img=5)),
)
""",
    kinds=f"""
_base_ = '../my/kinds.py'
{TINY}
model = dict(backbone=backbone, head=dict(in_channels=128))
train_dataloader = val_dataloader = test_dataloader = loader
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(max_epochs=1)
""",
    parts=f"""
_base_ = '../my/parts.py'
{TINY}
model = dict(
    backbone=backbone,
    data_preprocessor=dict(size=(64, 64)),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(in_channels=64, channels=16),
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (128, 96)
train_pipeline[3].crop_size = (64, 64)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **loader)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
""",
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What a user has who followed the page."""
    folder = tmp_path_factory.mktemp('Größe 1.5')
    for name in ('tools', 'configs'):
        (folder / name).symlink_to(ROOT / name)
    for place, texts in (('my', CONFIGS), ('small', SMALL)):
        (folder / place).mkdir()
        for name, text in texts.items():
            (folder / place / f'{name}.py').write_text(text)
    for split, count, seed in (('train', 8, 0), ('val', 4, 1)):
        write_coco_set(folder / 'data' / 'shapes', split, count, seed)
        write_class_folders(folder / 'data' / 'kinds', split, 4, seed)
        write_label_maps(folder / 'data' / 'parts', split, 4, seed)
    write_coco_set(folder, 'new photos', 4, 2)
    return folder


@pytest.fixture
def run(folder, monkeypatch, capfd):
    """Run the page's commands about a config, and return their output.

    They run in this process, since imports take most of the time.
    """
    monkeypatch.chdir(folder)

    def run(name):
        commands = [c for c in COMMANDS if f'my/{name}.py' in c]
        assert len(commands) >= 4
        outputs = {}
        for command in commands:
            tool, *arguments = shlex.split(command)
            if 'browse' not in tool:  # no model is built to look at data
                arguments = [
                    re.sub('^my/', 'small/', a)
                    if a.startswith('my/')
                    else re.sub(r'epoch_\d+', 'epoch_1', a)
                    for a in arguments
                ]
                arguments = [
                    re.sub(r'iter_\d+', 'iter_2', a) for a in arguments
                ]
            monkeypatch.setattr(sys, 'argv', [tool, *arguments])
            try:
                runpy.run_path(str(folder / tool), run_name='__main__')
            except SystemExit as end:
                assert not end.code, capfd.readouterr().err
            outputs[Path(tool).stem] = capfd.readouterr()
            # Processes of their own would share none of these.
            for manager in (
                MMLogger,
                MessageHub,
                DefaultScope,
                Visualizer,
                *Visualizer.__subclasses__(),
            ):
                manager._instance_dict.clear()
        return outputs

    return run


def test_every_command_is_run():
    assert len(COMMANDS) == PAGE.count('\npython ')
    for command in COMMANDS:
        assert sum(f'my/{name}.py' in command for name in SMALL) == 1


def named(record, field):
    return {row['name'] for row in record[field]}


def check_inference(folder, name, field):
    found = list((folder / 'outputs' / name / 'preds').rglob('*.json'))
    assert len(found) == 4
    for path in found:
        assert named(json.loads(path.read_text()), field) <= {'ground', *NAMES}
    vis = folder / 'outputs' / name / 'vis'
    assert len([p for p in vis.rglob('*') if p.is_file()]) == 4


def check_pictures(folder, name, count):
    pictures = folder / 'work_dirs' / name / 'pictures'
    files = [path for path in pictures.rglob('*') if path.is_file()]
    assert len(files) == count
    for file in files:
        Image.open(file).load()


def test_detection(run, folder):
    outputs = run('shapes')
    (shown,) = re.findall(r'^\d+ images; .*', PAGE, re.M)
    assert shown in outputs['browse_dataset'].out
    assert Image.open(folder / 'shapes.png').width > 1000
    assert 'coco/segm_mAP' in outputs['test'].out
    check_pictures(folder, 'shapes', 4)
    assert Image.open(folder / 'result.jpg').width > 1000
    assert outputs['infer'].out.startswith('4 images done, 0 skipped')
    check_inference(folder, 'shapes', 'detections')


def test_classification(run, folder):
    outputs = run('kinds')
    counts = ', '.join(f'{name}: 4' for name in NAMES)
    assert f'12 images; {counts}' in outputs['browse_dataset'].out
    assert 'accuracy/top1' in outputs['test'].out
    check_pictures(folder, 'kinds', 12)
    check_inference(folder, 'kinds', 'classes')


def test_segmentation(run, folder):
    outputs = run('parts')
    assert '4 images' in outputs['browse_dataset'].out
    assert 'mIoU' in outputs['test'].out
    check_pictures(folder, 'parts', 4)
    check_inference(folder, 'parts', 'classes')


def test_annotations_on_the_page_are_a_whole_file(tmp_path):
    (text,) = re.findall(r'```json\n(.*?)```', PAGE, re.S)
    content = json.loads(text)
    write_coco_set(tmp_path, 'val', 1, 0)
    real = json.loads((tmp_path / 'annotations' / 'val.json').read_text())
    for part in ('images', 'annotations', 'categories'):
        assert set(content[part][0]) == set(real[part][0])


def rewrite(folder, change):
    """A file of annotations that was changed."""
    path = folder / 'data' / 'shapes' / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    for item in content['annotations']:
        change(item)
    path.with_name('changed.json').write_text(json.dumps(content))
    return {
        'train_dataloader.dataset.ann_file': 'annotations/changed.json',
    }


NAMES_OPTION = 'train_dataloader.dataset.metainfo.classes'
# The page's rows, in their order: what causes each message.
FAULTS = [
    lambda folder: {NAMES_OPTION: ('Ball', 'box', 'star')},
    lambda folder: {NAMES_OPTION: 'ball'},
    lambda folder: {'model.roi_head.bbox_head.num_classes': 80},
    lambda folder: {'val_dataloader.dataset.data_root': 'data/shapes/x/'},
    lambda folder: {'train_dataloader.dataset.data_prefix.img': 'val/'},
    lambda folder: rewrite(folder, lambda item: item.pop('segmentation')),
    lambda folder: {'val_evaluator.ann_file': 'data/coco/annotations/x.json'},
    lambda folder: {
        'model.backbone.init_cfg.checkpoint': 'http://127.0.0.1:9/x.pth'
    },
    lambda folder: {'model.backbone.init_cfg.checkpoint': 'x.pth'},
]
ROWS = re.findall(r'^\| `([^`]*)` \|', PAGE, re.M)


def test_every_fault_is_caused():
    assert len(ROWS) == len(FAULTS)


@pytest.mark.parametrize(('shown', 'cause'), zip(ROWS, FAULTS), ids=ROWS)
def test_faults(folder, monkeypatch, shown, cause):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as error:
        train('my/shapes.py', options=cause(folder))
    parts = map(re.escape, filter(None, map(str.strip, shown.split('...'))))
    assert re.search('.*'.join(parts), str(error.value)), str(error.value)
