import gc
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image

from mmssm import VMamba
from mmssm.apis import evaluate, resolutions
from mmssm.apis.image_sizes import own_size, size_options
from mmssm.apis.resolutions import (
    Resolution,
    as_table,
    check_sizes,
    draw_resolutions,
    evaluate_resolutions,
)
from mmssm.datasets.mini.build import ensure_root
from mmssm.datasets.mini.imagenet import write_imagenet
from mmssm.engine.runner import launch as distributed
from mmssm.utils import CheckpointError, ConfigError
from mmssm.utils.config import complete_model, load_config

CONFIGS = Path(__file__).parents[2] / 'configs'
VMAMBA = CONFIGS / 'vmamba/vmamba-tiny-s1l8_8xb128_in1k.py'
MINI = CONFIGS / 'mini/vmamba-mini_mini-in1k.py'
DATASET = 'test_dataloader.dataset'
# A model of a few thousand parameters and so few images that a batch of the
# config's, 64, holds them all; at 64 pixels it holds 36.
TINY = {
    'model.backbone.arch': dict(
        embed_dims=8, depths=(1, 1), d_state=1, ssm_ratio=1.0
    ),
    'model.backbone.out_indices': (1,),
    'model.head.in_channels': 16,
    # The images come in the order of their classes.
    f'{DATASET}.indices': list(range(0, 360, 6)),
}


def pipeline_config(*steps, batch=64, scope='mmpretrain.'):
    """A config with a test pipeline of (transform, arguments)."""
    steps = [('LoadImageFromFile', {}), *steps, ('PackInputs', {})]
    pipeline = [
        dict(type=scope + name, **arguments) for name, arguments in steps
    ]
    return Config(
        dict(
            test_dataloader=dict(
                batch_size=batch, dataset=dict(type='A', pipeline=pipeline)
            )
        )
    )


def sizes_in(pipeline):
    return [
        value
        for step in pipeline
        for key, value in step.items()
        if key in ('scale', 'crop_size', 'crop_padding')
    ]


@pytest.mark.parametrize(
    'size, batch', [(384, 21), (512, 12), (640, 7), (768, 5), (1024, 3)]
)
def test_sizes_are_those_of_the_configs(size, batch):
    cfg = load_config(str(VMAMBA))
    assert cfg.test_dataloader.batch_size == 64
    options = size_options(cfg, size)
    changed, kept = (
        load_config(str(config), values).test_dataloader
        for config, values in (
            (VMAMBA, options),
            (VMAMBA.with_stem(f'{VMAMBA.stem}-{size}px'), {}),
        )
    )
    # Which config a transform stands in is noted on some.
    for step in kept.dataset.pipeline:
        step.pop('_scope_', None)
    assert changed.dataset == kept.dataset
    assert changed.batch_size == batch


@pytest.mark.parametrize('config', [VMAMBA, MINI])
def test_its_own_size_leaves_a_config_as_it_is(config):
    cfg = load_config(str(config))
    changed = load_config(str(config), size_options(cfg, own_size(cfg)))
    cfg.test_dataloader.persistent_workers = False
    assert changed.test_dataloader == cfg.test_dataloader


@pytest.mark.parametrize(
    'steps, own, sizes',
    [
        ([('Resize', dict(scale=48))], 48, [72]),
        ([('Resize', dict(scale=(48, 48)))], 48, [(72, 72)]),
        ([('ResizeEdge', dict(scale=51, edge='short'))], 51, [72]),
        (
            [
                ('Resize', dict(scale=(61, 51))),
                ('CenterCrop', dict(crop_size=48)),
            ],
            48,
            [(91, 76), 72],
        ),
        (
            [
                ('ResizeEdge', dict(scale=55)),
                ('CenterCrop', dict(crop_size=(48, 48))),
            ],
            48,
            [82, (72, 72)],
        ),
        # The image's own pixels are cropped first.
        (
            [
                ('CenterCrop', dict(crop_size=500)),
                ('Resize', dict(scale=48)),
            ],
            48,
            [500, 72],
        ),
        ([('EfficientNetCenterCrop', dict(crop_size=48))], 48, [72, 48]),
        (
            [('EfficientNetCenterCrop', dict(crop_size=48, crop_padding=0))],
            48,
            [72, 0],
        ),
    ],
)
@pytest.mark.parametrize('scope', ['', 'mmpretrain.'])
def test_usual_transforms(steps, own, sizes, scope):
    cfg = pipeline_config(*steps, scope=scope)
    before = cfg.to_dict()
    assert own_size(cfg) == own
    options = size_options(cfg, 72)
    assert sizes_in(options[f'{DATASET}.pipeline']) == sizes
    assert cfg.to_dict() == before


def test_every_part_of_a_test_set_changes():
    first, second = (
        pipeline_config(
            ('ResizeEdge', dict(scale=scale)),
            ('CenterCrop', dict(crop_size=224)),
        ).test_dataloader.dataset
        for scale in (256, 248)
    )
    wrapped = dict(type='Repeat', times=2, dataset=second)
    parts = dict(type='ConcatDataset', datasets=[first, wrapped])
    cfg = Config(dict(test_dataloader=dict(dataset=parts)))
    options = size_options(cfg, 448)
    cfg.merge_from_dict(options)
    first, second = cfg.test_dataloader.dataset.datasets
    assert sizes_in(first.pipeline) == [512, 448]
    assert sizes_in(second.dataset.pipeline) == [496, 448]
    assert cfg.test_dataloader.batch_size == 1
    second.dataset.pipeline[2].crop_size = 224
    with pytest.raises(
        ConfigError,
        match=r'datasets\.0 448, test_.*datasets\.1\.dataset 224\); give',
    ):
        own_size(cfg)


@pytest.mark.parametrize(
    'size, batch', [(24, 64), (48, 64), (49, 61), (96, 16), (385, 1), (999, 1)]
)
def test_pixels_of_a_batch(size, batch):
    cfg = pipeline_config(('Resize', dict(scale=48)))
    options = size_options(cfg, size)
    assert options['test_dataloader.batch_size'] == batch
    assert batch == 1 or batch * size**2 <= 64 * 48**2


@pytest.mark.parametrize(
    'steps, message',
    [
        ([], r'image size \(found: LoadImageFromFile, PackInputs\); give'),
        # Of a larger crop, more would be seen, not larger.
        ([('CenterCrop', dict(crop_size=8))], 'File, CenterCrop, PackInputs'),
        ([('Resize', dict(scale_factor=2))], 'Resize with scale=None'),
        ([('Resize', dict(scale=(8, -1)))], r'Resize with scale=\(8, -1\)'),
        ([('Resize', dict(scale=(8, 6)))], r'not square \(Resize, scale'),
    ],
)
def test_unusable_pipelines(steps, message):
    cfg = pipeline_config(*steps)
    with pytest.raises(ConfigError, match=message) as error:
        own_size(cfg)
    assert 'test_dataloader.dataset.pipeline' in str(error.value)


def test_sizes():
    assert check_sizes([512, 224, 512]) == [224, 512]
    for wrong in ([], [224, 0], [-1], [2.5], ['224']):
        with pytest.raises(ConfigError, match='--sizes: got .*; give whole'):
            check_sizes(wrong)


@torch.no_grad()
def fit_head(model, images):
    """The linear classifier that errs least on some images."""
    data = model.data_preprocessor(default_collate(list(images)))
    labels = torch.cat([sample.gt_label for sample in data['data_samples']])
    features = model.eval().extract_feat(data['inputs'])[0]
    features = torch.nn.functional.pad(features, (0, 1), value=1.0)
    wanted = torch.nn.functional.one_hot(labels, 10).float()
    fitted = torch.linalg.lstsq(features, wanted, driver='gelsd').solution.T
    model.head.fc.weight.copy_(fitted[:, :-1])
    model.head.fc.bias.copy_(fitted[:, -1])


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A checkpoint of the tiny model, and the options for it and its data."""
    folder = tmp_path_factory.mktemp('tiny')
    root = folder / 'data'
    ensure_root(root, lambda path: write_imagenet(path, dict(train=0, test=1)))
    options = TINY | {f'{DATASET}.data_root': str(root)}
    cfg = load_config(str(MINI), dict(options))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(complete_model(cfg))
        fit_head(model, DATASETS.build(cfg.test_dataloader.dataset))
    checkpoint = folder / 'tiny.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return str(checkpoint), options


def test_results_are_those_of_plain_tests(tiny, tmp_path, capsys):
    checkpoint, options = tiny
    both = {'test_evaluator.topk': (1, 5)}
    results = evaluate_resolutions(
        str(MINI),
        checkpoint,
        [64, 48, 64],
        work_dir=str(tmp_path / 'all'),
        options=options | both,
    )
    printed = capsys.readouterr().out
    plain = {
        size: evaluate(
            str(MINI),
            checkpoint,
            work_dir=str(tmp_path / str(size)),
            options={**options, **both, f'{DATASET}.pipeline.1.scale': size},
        )
        for size in (48, 64)
    }
    assert results == [
        Resolution(
            size,
            batch,
            plain[size]['accuracy/top1'],
            plain[size]['accuracy/top5'],
        )
        for size, batch in ((48, 64), (64, 36))
    ]
    # Else the sizes could be mixed up.
    assert results[0].top1 != results[1].top1
    assert '[1/2] 48 x 48, 64 images per batch ...\n' in printed
    assert '[2/2] 64 x 64, 36 images per batch ...\n' in printed
    picture = tmp_path / 'all' / 'resolutions.png'
    assert printed.endswith(f'{as_table(results)}\n{picture}\n')
    with Image.open(picture) as drawn:
        assert drawn.size == (825, 600)
    # What test.py would find there, at the config's own size too.
    kept = [
        json.loads((tmp_path / name / 'test_results.json').read_text())
        for name in ('all', '48')
    ]
    assert len(kept[0]) == 2
    assert kept[0][0]['settings'] == kept[1][0]['settings']


def test_a_failing_size_takes_no_results_with_it(
    tiny, tmp_path, capsys, monkeypatch
):
    checkpoint, options = tiny

    def evaluate_small(*arguments, options, **others):
        if options[f'{DATASET}.pipeline'][1]['scale'] > 64:
            raise torch.OutOfMemoryError('too large')
        return evaluate(*arguments, options=options, **others)

    monkeypatch.setattr(resolutions, 'evaluate', evaluate_small)
    out = tmp_path / 'new' / 'drawn.svg'
    with pytest.raises(torch.OutOfMemoryError, match='too large'):
        evaluate_resolutions(
            str(MINI),
            checkpoint,
            [32, 48, 96],
            out=out,
            work_dir=str(tmp_path / 'work'),
            options=options,
        )
    lines = capsys.readouterr().out.splitlines()
    assert '[3/3] 96 x 96, 16 images per batch ...' in lines
    assert lines[-4].split() == 'size top-1 top-5 images per batch'.split()
    # The config's evaluator measures no top-5.
    assert [line.split()[0:3:2] for line in lines[-3:-1]] == [
        ['32', '-'],
        ['48', '-'],
    ]
    assert lines[-1] == str(out)
    drawn = out.read_text()
    assert '<!-- 48 -->' in drawn and '<!-- 96 -->' not in drawn


def test_one_model_at_a_time(tiny, tmp_path, monkeypatch):
    checkpoint, options = tiny
    counts = []

    def count(*arguments, **others):
        counts.append(sum(type(x) is VMamba for x in gc.get_objects()))
        return evaluate(*arguments, **others)

    monkeypatch.setattr(resolutions, 'evaluate', count)
    gc.collect()
    gc.disable()
    try:
        evaluate_resolutions(
            str(MINI),
            checkpoint,
            [16, 24, 32],
            work_dir=str(tmp_path),
            options=options | {f'{DATASET}.indices': 2},
        )
    finally:
        gc.enable()
    assert counts == counts[:1] * 3


def test_several_sizes_under_a_launcher(tiny, tmp_path, monkeypatch, capsys):
    """torchrun's only process, on a CPU."""
    checkpoint, options = tiny
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(distributed, '_end_with_launcher', lambda: None)
    variables = dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, LOCAL_WORLD_SIZE=1)
    variables |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=0)
    variables['MKL_NUM_THREADS'] = 1  # mmengine would set it for good
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    try:
        results = evaluate_resolutions(
            str(MINI),
            checkpoint,
            [24, 32],
            work_dir=str(tmp_path),
            options=options,
            launcher='pytorch',
        )
        assert dist.is_initialized()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    assert [result.size for result in results] == [24, 32]


@pytest.mark.parametrize(
    'changes, error, message',
    [
        (dict(sizes=[]), ConfigError, '--sizes: got none'),
        (dict(out='x.txt'), ValueError, 'x.txt: its suffix must be one of'),
        (dict(out='a.png'), ConfigError, 'a.png is a folder; name a pict'),
        (dict(config='none.py'), ConfigError, 'none.py does not exist'),
        (dict(checkpoint='none.pth'), CheckpointError, 'does not exist'),
        (
            dict(
                config=str(CONFIGS / 'mini/vmamba-mini_upernet_mini-ade20k.py')
            ),
            ConfigError,
            "is mmseg's, but .* is a classifier's",
        ),
        (
            dict(options={'test_evaluator.topk': 5}),
            ConfigError,
            r'\(Accuracy\) gives no top-1 accuracy',
        ),
        (
            dict(options={'test_evaluator.thrs': [0.1, 0.2]}),
            ConfigError,
            'gives no top-1 accuracy',
        ),
        (
            dict(options={'test_evaluator.type': 'SingleLabelMetric'}),
            ConfigError,
            r'\(SingleLabelMetric\) gives no top-1',
        ),
        (
            dict(options={'test_evaluator': None}),
            ConfigError,
            'sets no test_evaluator',
        ),
    ],
)
def test_errors_before_anything_runs(
    tmp_path, monkeypatch, changes, error, message
):
    monkeypatch.chdir(tmp_path)
    Path('some.pth').write_bytes(b'x')
    Path('a.png').mkdir()
    arguments = dict(config=str(MINI), checkpoint='some.pth', sizes=[32])
    with pytest.raises(error, match=message):
        evaluate_resolutions(**arguments | changes)
    assert [path.name for path in tmp_path.rglob('*.png')] == ['a.png']


def test_a_users_pipeline_is_changed_too(tmp_path):
    """Pipelines and their parts among the options, which are not touched."""
    pipeline = [dict(type='Resize', scale=20), dict(type='PackInputs')]
    options = {
        f'{DATASET}.pipeline': pipeline,
        'test_dataloader.batch_size': 8,
        'val_dataloader': dict(_delete_=True, batch_size=1),
    }
    seen = []

    def evaluate_nothing(config, checkpoint, options, **others):
        cfg = load_config(config, options)
        seen.append((cfg.test_dataloader, cfg.val_dataloader))
        return {'accuracy/top1': 50.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolutions, 'evaluate', evaluate_nothing)
        evaluate_resolutions(
            str(MINI), 'x', [20, 40], work_dir=str(tmp_path), options=options
        )
    scales = [loader.dataset.pipeline[0].scale for loader, _ in seen]
    assert scales == [20, 40] and pipeline[0]['scale'] == 20
    assert [loader.batch_size for loader, _ in seen] == [8, 2]
    assert all('sampler' not in loader for _, loader in seen)


def test_picture(tmp_path):
    results = [
        Resolution(size, 8, top1, None)
        for size, top1 in ((224, 82.64), (384, 80.06), (512, 70.55))
    ]
    out = tmp_path / 'x.svg'
    draw_resolutions(results, 300, 'my model', out)
    texts = set(re.findall('<!-- (.*?) -->', out.read_text()))
    assert texts >= {'my model', 'image size (px)', 'top-1 accuracy (%)'}
    assert texts >= {'224', '384', '512', '82.6', '80.1', '70.5'}
    assert "the config's size (300 px)" in texts and '300' not in texts
    # The line at the config's size is drawn.
    out = tmp_path / 'x.png'
    draw_resolutions(results, 300, 'my model', out)
    picture = np.asarray(Image.open(out).convert('RGB')).astype(int)
    gray = (abs(picture - 128) < 3).all(-1)
    assert gray.sum(0).max() > 100
