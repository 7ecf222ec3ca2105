"""Inference for three tasks, with tiny models whose answers are known.

Their last layers have no weights, only biases, so that every image gets the
probabilities in ``SCORES``.
"""

import json
import math
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from torch.autograd.profiler import profile

from mmssm.apis import infer
from mmssm.utils import CheckpointError, ConfigError

NAMES = ('ant', 'fox', 'owl')
SCORES = (0.04, 0.9, 0.06)
PALETTE = [[10, 20, 30], [200, 0, 0], [0, 0, 250]]
BACKBONE = """dict(
    type='VMamba',
    arch=dict(
        embed_dims=16, depths=(1, 1, 1, 1), d_state=1, ssm_ratio=1.0,
        mlp_ratio=1.0, stem='conv', downsample='conv', gate=False,
        conv_bias=False, mixer='ss2d', drop_path_rate=0.0, ssm_init='s4d',
        act='SiLU'),
    out_indices=(0, 1, 2, 3))"""
HEAD = """
custom_imports = dict(imports=['mmssm'], allow_failed_imports=False)
test_dataloader = dict(
    dataset=dict(
        type='RepeatDataset',
        times=1,
        dataset=dict(
            type='{dataset}',
            data_root='not there',
            pipeline=[
                dict(type='LoadImageFromFile', backend_args=None),
                {steps}
            ])))
"""
CLASSIFIER = f"""
default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone={BACKBONE},
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=128, num_classes=3))
""" + HEAD.format(
    dataset='CustomDataset',
    steps="dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')",
)
SEGMENTOR = f"""
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[0, 0, 0], std=[255, 255, 255],
        bgr_to_rgb=True),
    backbone={BACKBONE},
    decode_head=dict(
        type='FCNHead', in_channels=16, in_index=0, channels=8, num_convs=1,
        num_classes=3, norm_cfg=dict(type='SyncBN')),
    test_cfg=dict(mode='whole'))
""" + HEAD.format(
    dataset='BaseSegDataset',
    steps="dict(type='mmseg.LoadAnnotations', reduce_zero_label=True), "
    "dict(type='PackSegInputs')",
)
DETECTOR = f"""
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']
default_scope = 'mmdet'
model = dict(
    backbone=dict(_delete_=True, **{BACKBONE}),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=8, num_classes=2),
        mask_roi_extractor=dict(out_channels=8),
        mask_head=dict(
            num_convs=1, in_channels=8, conv_out_channels=8, num_classes=2)),
    test_cfg=dict(rpn=dict(max_per_img=10)))
""" + HEAD.format(
    dataset='CocoDataset',
    steps="dict(type='Resize', scale=(64, 64), keep_ratio=True), "
    "dict(type='LoadAnnotations', with_bbox=True, with_mask=True), "
    "dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', "
    "'ori_shape', 'img_shape', 'scale_factor'))",
)


def only_biases(layer, biases):
    layer.weight.data.zero_()
    layer.bias.data[:] = torch.as_tensor(biases)


def make(folder, text, names=NAMES):
    """Write a config and its model's checkpoint, None for no class names."""
    config = folder / 'config.py'
    config.write_text(text)
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    logs = [math.log(score) for score in SCORES]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    if cfg.default_scope == 'mmpretrain':
        only_biases(model.head.fc, logs)
    elif cfg.default_scope == 'mmseg':
        only_biases(model.decode_head.conv_seg, logs)
    else:  # two classes, and the background
        only_biases(model.roi_head.bbox_head.fc_cls, logs)
        only_biases(model.rpn_head.rpn_reg, 0.0)  # boxes are anchors
        only_biases(model.roi_head.bbox_head.fc_reg, 0.0)
        only_biases(model.roi_head.mask_head.conv_logits, [-9.0, 9.0])
        names = names and names[:2]
    meta = {}
    if names:
        palette = PALETTE[: len(names)]
        meta = dict(dataset_meta=dict(classes=names, palette=palette))
    checkpoint = folder / 'model.pth'
    torch.save(dict(meta=meta, state_dict=model.state_dict()), checkpoint)
    return str(config), str(checkpoint)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """(config, checkpoint) of each task."""
    texts = dict(cls=CLASSIFIER, seg=SEGMENTOR, det=DETECTOR)
    return {
        task: make(tmp_path_factory.mktemp(task), text)
        for task, text in texts.items()
    }


def save_image(path, size=(60, 40), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path, **options)
    return path


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save_image(Path('photos') / 'one.jpg')


def read(out_dir, name='one'):
    record = json.loads((out_dir / 'preds' / f'{name}.json').read_text())
    record.pop('image')
    return record


def picture(out_dir, name='one.jpg'):
    with Image.open(out_dir / 'vis' / name) as file:
        return np.array(file.convert('RGB')).astype(int)


def test_classification(models, image):
    summary = infer(image, *models['cls'])
    assert str(summary) == '1 image done, 0 skipped'
    assert summary.out_dir == Path('outputs/config')
    record = read(summary.out_dir)
    assert (record['width'], record['height']) == (60, 40)
    assert [r['name'] for r in record['classes']] == ['fox', 'owl', 'ant']
    assert [r['label'] for r in record['classes']] == [1, 2, 0]
    scores = [r['score'] for r in record['classes']]
    assert scores == pytest.approx([0.9, 0.06, 0.04])
    height, width, _ = picture(summary.out_dir).shape
    assert width == 640 and height > 427  # enlarged, and a list below


def test_segmentation(models, image):
    summary = infer(image, *models['seg'], out_dir='out')
    record = read(summary.out_dir)
    assert record['classes'] == [dict(label=1, name='fox', share=1.0)]
    with Image.open(Path('out/preds') / record['index_map']) as index:
        assert (np.array(index) == np.ones((40, 60))).all()
    # More than half of the class's red over each pixel.
    assert picture(summary.out_dir)[:400, :, 0].min() > 80


def test_shares_are_those_of_the_index_map(tmp_path, image):
    config, checkpoint = make(tmp_path, SEGMENTOR)
    content = torch.load(checkpoint)
    layer = 'decode_head.conv_seg'
    torch.nn.init.normal_(content['state_dict'][f'{layer}.weight'])
    content['state_dict'][f'{layer}.bias'].zero_()
    torch.save(content, checkpoint)
    summary = infer(image, config, checkpoint)
    record = read(summary.out_dir)
    index = np.array(Image.open(summary.out_dir / 'preds' / 'one.png'))
    shares = [row['share'] for row in record['classes']]
    assert len(shares) > 1 and shares == sorted(shares, reverse=True)
    for row in record['classes']:
        assert row['share'] == (index == row['label']).mean()
        assert row['name'] == NAMES[row['label']]


def test_detection(models, image):
    from pycocotools import mask as coco

    summary = infer(image, *models['det'])
    found = read(summary.out_dir)['detections']
    compared = 0
    for row in found:
        assert set(row) == {'label', 'name', 'score', 'bbox', 'mask'}
        assert (row['label'], row['name']) == (1, 'fox')
        assert row['score'] == pytest.approx(0.9)
        left, top, right, bottom = row['bbox']
        assert 0 <= left < right <= 60 and 0 <= top < bottom <= 40
        mask = coco.decode(row['mask'])
        assert mask.shape == (40, 60)
        sides = right - left, bottom - top
        if min(sides) > 8:  # rounding hardly counts
            compared += 1
            assert mask.sum() == pytest.approx(math.prod(sides), rel=0.3)
    assert compared
    plain = picture(infer(image, *models['det'], 'bare', score_thr=1).out_dir)
    assert read(Path('bare'))['detections'] == []
    # The class's red instead of noise, where it was found.
    assert picture(summary.out_dir)[..., 0].mean() > plain[..., 0].mean() + 20


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='needs oneDNN'
)
@pytest.mark.parametrize('task', ['cls', 'seg', 'det'])
def test_prepared_for_a_cpu(models, image, task):
    plain = read(infer(image, *models[task], out_dir='a').out_dir)
    with profile() as events:
        infer(image, *models[task], out_dir='b', optimize='float32')
    names = [event.name for event in events.function_events]
    assert names.count('mkldnn::_linear_pointwise') > 8
    assert read(Path('b')) == approx_record(plain)


def test_preparing_is_for_cpus(models, image, monkeypatch):
    gpu = torch.device('cuda')
    module = sys.modules['mmssm.apis.infer']  # not the function
    monkeypatch.setattr(module, 'find_device', lambda device: gpu)
    with pytest.raises(ConfigError, match='--optimize float32 .* --device'):
        infer(image, *models['cls'], optimize='float32')


def approx_record(record):
    """Numbers may differ in the last digits."""
    text = json.dumps(record)
    return json.loads(
        text, parse_float=lambda value: pytest.approx(float(value), abs=1e-4)
    )


def test_scopes_in_any_order(models, image, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    DefaultScope.get_instance('outer', scope_name='mmseg')
    for task in ('det', 'cls', 'seg', 'det', 'seg', 'cls'):
        assert infer(image, *models[task], f'out {task}').done == 1
    assert DefaultScope.get_current_instance().instance_name == 'outer'
    first = (Path('out cls') / 'preds' / 'one.json').read_bytes()
    infer(image, *models['cls'], 'again')
    assert (Path('again') / 'preds' / 'one.json').read_bytes() == first


def test_unreadable_images_are_named(models, image, capsys):
    folder = image.parent
    whole = image.read_bytes()
    (folder / 'empty.png').touch()
    (folder / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (folder / 'text.webp').write_text('not an image')
    (folder / 'gone.bmp').symlink_to('nowhere')
    save_image(folder / 'two.tif')
    (folder / 'notes.txt').write_text('left alone')
    summary = infer(folder, *models['cls'])
    assert str(summary) == '2 images done, 4 skipped'
    reasons = {Path(p).name: r for p, r in summary.skipped.items()}
    assert reasons['empty.png'] == 'the file is empty (0 bytes)'
    assert 'cut short' in reasons['cut.jpg']
    assert 'not an image' in reasons['text.webp']
    assert reasons['gone.bmp'] == 'No such file or directory'
    lines = capsys.readouterr().err.splitlines()
    skipped = [line for line in lines if line.startswith('skipped ')]
    assert len(skipped) == 4 and 'photos/cut.jpg: ' in skipped[0]
    written = {p.name for p in (summary.out_dir / 'vis').iterdir()}
    assert written == {'one.jpg', 'two.png'}


@pytest.mark.parametrize(
    'task, reasons',
    [('det', ['resize']), ('seg', ['smaller than one patch'] * 2)],
)
def test_images_the_model_cannot_take(models, image, task, reasons, capsys):
    """The detector's pipeline enlarges one pixel, the segmentor's does not."""
    folder = image.parent
    save_image(folder / 'a thin.png', (1500, 2))
    save_image(folder / 'b dot.png', (1, 1))
    summary = infer(folder, *models[task])
    assert summary.done == 3 - len(reasons)
    assert read(summary.out_dir)['width'] == 60
    names = [f'photos/{name}.png' for name in ('a thin', 'b dot')]
    assert list(summary.skipped) == names[: len(reasons)]
    for found, reason in zip(summary.skipped.values(), reasons):
        assert found.startswith('the model cannot take an image of ')
        assert reason in found
    assert ' 1500 (width) x 2 (height) ' in summary.skipped[names[0]]
    lines = capsys.readouterr().err.splitlines()
    skipped = [line for line in lines if line.startswith('skipped photos/')]
    assert len(skipped) == len(reasons)
    assert not list(summary.out_dir.rglob('a thin*'))


def test_a_model_of_another_kind_is_no_images_fault(models, image):
    from mmdet.models import MaskRCNN

    class NoDetector(MaskRCNN):
        def predict(self, *args, **kwargs):
            samples = super().predict(*args, **kwargs)
            del samples[0].pred_instances
            return samples

    with DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.register_module(module=NoDetector, force=True)
    with pytest.raises(ConfigError, match='NoDetector is not a detector'):
        infer(image, *models['det'], options={'model.type': 'NoDetector'})


def test_names(models, tmp_path, monkeypatch):
    """Relative paths stay, names that would collide keep their suffix."""
    monkeypatch.chdir(tmp_path)
    for name in ('a.jpg', 'a.PNG', 'a.jpg.png', 'b/a.jpg', 'b/.hidden.jpg'):
        save_image(Path(name))
    for _ in range(2):  # the second time with the results of the first
        summary = infer('.', *models['cls'])
        assert summary.done == 4
    preds = summary.out_dir / 'preds'
    records = {
        str(path.relative_to(preds)): json.loads(path.read_text())['image']
        for path in preds.rglob('*.json')
    }
    assert records == {
        'a.PNG.json': 'a.PNG',
        'a.jpg.json': 'a.jpg',
        'a.jpg-2.json': 'a.jpg.png',
        'b/a.json': 'b/a.jpg',
    }
    pictures = {path.name for path in (summary.out_dir / 'vis').iterdir()}
    assert pictures == {'a.PNG.png', 'a.jpg.jpg', 'a.jpg-2.png', 'b'}
    with pytest.raises(ConfigError, match='another --out-dir'):
        infer(summary.out_dir / 'vis', *models['cls'])


def test_upright(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    save_image(Path('one.jpg'), exif=exif)
    record = read(infer('one.jpg', *models['seg'], 'out').out_dir)
    assert (record['width'], record['height']) == (40, 60)
    assert Image.open('out/preds/one.png').size == (40, 60)


def test_image_is_read_once(models, tmp_path, monkeypatch):
    """Whatever the config's loader would do: boxes and size must agree."""
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(Path('one.jpg'), exif=exif)
    place = 'test_dataloader.dataset.dataset.pipeline.0.color_type'
    plain, other = (
        read(infer('one.jpg', *models['det'], out, options=options).out_dir)
        for out, options in (
            ('plain', None),
            ('other', {place: 'color_ignore_orientation'}),
        )
    )
    assert plain['detections'] and plain == other
    for row in other['detections']:
        assert row['bbox'][2] <= 40 and row['mask']['size'] == [60, 40]
    with pytest.raises(ConfigError, match='reads images as grayscale'):
        infer('one.jpg', *models['det'], options={place: 'grayscale'})


def test_channels_reach_the_model_in_order(models, image, monkeypatch):
    from mmpretrain.models import ImageClassifier

    seen, forward = [], ImageClassifier.forward

    def keep(self, inputs, *args, **kwargs):
        seen.append(inputs[0].mean((1, 2)).tolist())
        return forward(self, inputs, *args, **kwargs)

    monkeypatch.setattr(ImageClassifier, 'forward', keep)
    Image.new('RGB', (32, 32), (255, 0, 0)).save('red.png')
    infer('red.png', *models['cls'])
    assert seen == [pytest.approx([1, 0, 0])]


def test_bad_requests(models, image, tmp_path):
    config, checkpoint = models['cls']
    Path('folder').mkdir()
    for arguments, options, message in (
        (('none.jpg', config, checkpoint), {}, 'none.jpg does not exist'),
        (('folder', config, checkpoint), {}, 'no image in folder'),
        ((image, config), {}, 'no checkpoint for'),
        ((image, 'none.py', checkpoint), {}, 'config none.py does not exist'),
        ((image, config, checkpoint), dict(score_thr=30), '--score-thr 30'),
        ((image, config, checkpoint), dict(device='x'), '--device x'),
        ((image, config, checkpoint), dict(device='mps'), '--device mps'),
        ((image, config, checkpoint), dict(device='cuda:99'), 'GPU'),
        (
            (image, config, checkpoint),
            dict(options=dict(default_scope='mmpose')),
            "'mmpose', but inference knows mmdet, mmseg, mmpretrain",
        ),
        (
            (image, config, checkpoint),
            dict(options=dict(test_dataloader=None)),
            'sets no test_dataloader',
        ),
        ((image, config, checkpoint), dict(out_dir=image), 'cannot write'),
    ):
        with pytest.raises(ConfigError) as caught:
            infer(*arguments, **options)
        assert message in str(caught.value)
        assert '\n' not in str(caught.value)
    with pytest.raises(CheckpointError, match='none.pth does not exist'):
        infer(image, config, 'none.pth')
    assert not Path('outputs').exists()
    Path('out').mkdir()
    Path('out/vis').touch()
    with pytest.raises(ConfigError, match='cannot write to out/vis .*out-dir'):
        infer(image, config, checkpoint, 'out')
    assert [path.name for path in Path('out').iterdir()] == ['vis']


@pytest.mark.parametrize('task', ['cls', 'seg', 'det'])
def test_wrong_checkpoint(models, image, task):
    other = models['seg' if task != 'seg' else 'cls'][1]
    with pytest.raises(CheckpointError, match='does not fit the model'):
        infer(image, models[task][0], other)


@pytest.mark.parametrize('text', [CLASSIFIER, SEGMENTOR], ids=['cls', 'seg'])
def test_classes_must_be_known(tmp_path, image, text):
    config, checkpoint = make(tmp_path, text, names=None)
    with pytest.raises(ConfigError, match='dataset.metainfo.classes='):
        infer(image, config, checkpoint)
    place = 'test_dataloader.dataset.dataset.metainfo'
    options = {place: dict(classes=['one', 'two'])}
    with pytest.raises(ConfigError, match='lists 2 class names .* 3 classes'):
        infer(image, config, checkpoint, options=options)
    options = {place: dict(classes=['one', 'two', 'three'])}
    summary = infer(image, config, checkpoint, options=options)
    assert read(summary.out_dir)['classes'][0]['name'] == 'two'


def test_classes_of_the_dataset(tmp_path, image):
    """CocoDataset names 80 classes, the detector knows two."""
    config, checkpoint = make(tmp_path, DETECTOR, names=None)
    with pytest.raises(
        ConfigError, match='CocoDataset lists 80 class names .* 2 classes'
    ):
        infer(image, config, checkpoint)


def test_original_authors_file_by_a_models_name(
    golden, image, tmp_path, monkeypatch
):
    """The name gives config and address, the file is converted."""
    from mmpretrain import ImageClassificationInferencer

    from mmssm.checkpoint import loaders

    original = tmp_path / 'vssm1_tiny.pth'
    weights = golden('vmamba_tiny_s1l8_cls').state_dict()
    torch.save(dict(model=weights), original)
    asked = []

    def download(url):
        asked.append(url)
        return original

    monkeypatch.setattr(loaders, 'download', download)
    name = 'vmamba-tiny-s1l8_8xb128_in1k'
    summary = infer(image, name)
    assert [url.startswith('https://github.com/MzeroMiko') for url in asked]
    assert summary.out_dir == Path('outputs') / name
    (expected,) = ImageClassificationInferencer(name, str(original))(
        str(image)
    )
    best = read(summary.out_dir)['classes'][0]
    assert best['label'] == expected['pred_label']
    assert best['name'] == expected['pred_class']
    assert best['score'] == pytest.approx(float(expected['pred_score']), 1e-4)


def test_name_without_weights(image, monkeypatch):
    from mmssm.apis import infer as function

    module = sys.modules[function.__module__]
    monkeypatch.setattr(module, 'find_model', lambda name: ('x.py', None))
    for name in ('some-model', 'some.model_v1.5'):
        with pytest.raises(ConfigError, match='no weights can be fetched'):
            infer(image, name)


def test_importing_it_imports_no_library():
    subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys, mmssm.inference; '
            'assert not {"mmdet", "mmseg", "mmpretrain"} & set(sys.modules)',
        ],
        env=dict(os.environ),
        check=True,
    )
