"""The file of predictions that a test writes."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS

from mmssm.apis import evaluate, train
from mmssm.apis.prediction_file import PredictionFileHook
from mmssm.apis.tasks.detection import Detection
from mmssm.apis.tasks.segmentation import Segmentation
from mmssm.utils import ConfigError

ROOT = Path(__file__).parents[2]
IMAGES = 6


@pytest.fixture(scope='module')
def dumped(mini_tasks, untrained, tmp_path_factory):
    """{scope: (metrics, file)} of a test of each task."""
    folder = tmp_path_factory.mktemp('dumped')
    found, before = {}, os.getcwd()
    os.chdir(mini_tasks[0])
    try:
        for scope, (config, checkpoint) in untrained.items():
            out = folder / f'{scope}.pkl'
            metrics = evaluate(
                config,
                checkpoint,
                work_dir=str(folder / scope),
                out=str(out),
                options={'test_dataloader.dataset.indices': IMAGES},
            )
            found[scope] = metrics, out
    finally:
        os.chdir(before)
    return found


def load(path):
    return pickle.loads(Path(path).read_bytes())


def test_of_a_segmentor_label_maps_are_kept(dumped):
    _, out = dumped['mmseg']
    samples = load(out)
    assert len(samples) == IMAGES
    for sample in samples:
        assert 'seg_logits' not in sample
        height, width = sample['ori_shape']
        for field in ('pred_sem_seg', 'gt_sem_seg'):
            assert sample[field]['data'].shape == (1, height, width)
            assert sample[field]['data'].dtype == torch.uint8
    # Two maps of a byte per pixel; the logits alone would take 44.
    assert out.stat().st_size < IMAGES * (2 * height * width + 5000)


def test_of_a_segmentor_the_metric_can_be_computed_again(dumped):
    from mmengine.evaluator import Evaluator
    from mmseg.evaluation import IoUMetric

    metrics, out = dumped['mmseg']
    evaluator = Evaluator(IoUMetric())
    evaluator.dataset_meta = dict(classes=[str(label) for label in range(11)])
    again = evaluator.offline_evaluate(load(out))
    assert again == {name: metrics[name] for name in ('aAcc', 'mIoU', 'mAcc')}


def test_of_a_detector_boxes_and_packed_masks_are_kept(dumped):
    _, out = dumped['mmdet']
    samples = load(out)
    assert len(samples) == IMAGES
    for sample in samples:
        assert 'gt_instances' not in sample
        found = sample['pred_instances']
        assert len(found['masks']) == len(found['bboxes'])
        for mask in found['masks']:
            assert isinstance(mask['counts'], bytes)


def test_of_a_classifier_each_image_has_its_own_scores(dumped):
    """Not those of its batch, of which they are a part."""
    _, out = dumped['mmpretrain']
    samples = load(out)
    assert len(samples) == IMAGES
    for sample in samples:
        scores = sample['pred_score']
        assert scores.untyped_storage().nbytes() == scores.nbytes
        assert {'gt_label', 'pred_label', 'img_path'} <= sample.keys()


def test_mmdets_own_file_has_the_same(dumped):
    """Its analysis tools read what its DumpDetResults writes."""
    masks = torch.rand(2, 4, 5) > 0.5
    instances = dict(bboxes=torch.rand(2, 4), masks=masks)
    sample = dict(
        img_id=1,
        pred_instances=instances,
        gt_instances=dict(bboxes=torch.rand(1, 4)),
        ignored_instances={},
    )
    packed = Detection().pack_prediction(sample)
    dump = METRICS.build(
        dict(type='mmdet.DumpDetResults', out_file_path='a.pkl')
    )
    dump.process({}, [sample])
    (expected,) = dump.results
    assert packed.keys() == expected.keys()
    assert (
        packed['pred_instances']['masks']
        == (expected['pred_instances']['masks'])
    )
    assert packed['pred_instances']['bboxes'] is not instances['bboxes']


@pytest.mark.parametrize(
    'values, dtype', [((0, 255), torch.uint8), ((-1, 300), torch.int32)]
)
def test_labels_fit_their_type(values, dtype):
    data = torch.tensor([[values]])
    sample = dict(pred_sem_seg=dict(data=data), seg_logits=dict(data=None))
    packed = Segmentation().pack_prediction(sample)
    assert packed['pred_sem_seg']['data'].dtype == dtype
    assert packed['pred_sem_seg']['data'].tolist() == data.tolist()
    assert sample.keys() == {'pred_sem_seg', 'seg_logits'}  # not changed


def test_an_interrupted_test_keeps_its_predictions(
    toy_config, monkeypatch, capsys
):
    train(toy_config, work_dir='out', options={'train_cfg.max_epochs': 1})
    Path('pred.pkl').write_bytes(b'of an earlier test')
    from toy import ToyMetric

    def process(self, data_batch, data_samples):
        # Until here, the file holds what was predicted before.
        assert len(load('pred.pkl.part')) == len(self.results)
        if len(self.results) == 4:
            raise KeyboardInterrupt
        self.results.extend(data_samples)

    monkeypatch.setattr(ToyMetric, 'process', process)
    with pytest.raises(KeyboardInterrupt):
        evaluate(toy_config, 'out/epoch_1.pth', work_dir='t', out='pred.pkl')
    assert len(load('pred.pkl.part')) == 4
    assert Path('pred.pkl').read_bytes() == b'of an earlier test'
    assert (
        'did not finish; its predictions so far (4) are in pred.pkl.part'
    ) in capsys.readouterr().err


def test_several_processes_write_one_file(toy_config, tmp_path):
    train(toy_config, work_dir='out', options={'train_cfg.max_epochs': 1})
    command = [ROOT / 'tools' / 'torchrun.py', '--standalone']
    command += ['--nproc_per_node=2', ROOT / 'tools' / 'test.py', toy_config]
    command += ['out/epoch_1.pth', '--launcher', 'pytorch', '--work-dir', 't']
    # Three images for each, one of them twice.
    command += ['--cfg-options', 'test_dataloader.dataset.length=5']
    path = os.pathsep.join([str(ROOT), str(Path(toy_config).parent)])
    done = subprocess.run(
        [sys.executable, *map(str, command), '--out', 'two.pkl'],
        env=dict(os.environ, PYTHONPATH=path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    options = {'test_dataloader.dataset.length': 5}
    evaluate(
        toy_config, 'out/epoch_1.pth', 't', out='one.pkl', options=options
    )
    one, two = load('one.pkl'), load('two.pkl')
    assert len(two) == 5 and len({float(error) for error in two}) == 5
    assert two == one
    assert not list(tmp_path.glob('*.part*'))


def test_files_that_cannot_be_written(tmp_path):
    (tmp_path / 'a.pkl').mkdir()
    with pytest.raises(ConfigError, match='is a folder; name a file in it'):
        PredictionFileHook(str(tmp_path / 'a.pkl'), lambda sample: sample)


def test_what_an_unfinished_test_left_is_kept(tmp_path, capsys):
    runner = SimpleNamespace()
    for number in range(3):
        hook = PredictionFileHook(str(tmp_path / 'a.pkl'), lambda item: item)
        hook.before_test(runner)
        hook.after_test_iter(runner, 0, None, [number])
        hook.close()
    kept = [load(tmp_path / f'a.pkl.part{end}') for end in ('.1', '.2', '')]
    assert kept == [[0], [1], [2]]
    assert 'a.pkl.part, are now' in capsys.readouterr().err


def test_several_datasets_with_metrics_of_their_own(
    mini_tasks, untrained, tmp_path, monkeypatch
):
    """mmdet's evaluator asks only as many metrics as there are datasets."""
    monkeypatch.chdir(mini_tasks[0])
    config, checkpoint = untrained['mmdet']
    cfg = Config.fromfile(config)
    part = cfg.test_dataloader.dataset | dict(indices=2)
    options = {
        'test_dataloader.dataset': dict(
            _delete_=True,
            type='mmdet.ConcatDataset',
            datasets=[part.to_dict(), part.to_dict()],
        ),
        'test_evaluator': dict(
            _delete_=True,
            type='MultiDatasetsEvaluator',
            metrics=[cfg.test_evaluator.to_dict()] * 2,
            dataset_prefixes=['a', 'b'],
        ),
    }
    metrics = evaluate(
        config,
        checkpoint,
        work_dir=str(tmp_path / 'work'),
        out=str(tmp_path / 'pred.pkl'),
        show_dir=str(tmp_path / 'shown'),
        options=options,
    )
    assert {name.split('/')[0] for name in metrics} <= {'a', 'b'}
    samples = load(tmp_path / 'pred.pkl')
    paths = [sample['img_path'] for sample in samples]
    assert len(paths) == 4 and paths[:2] == paths[2:]
    assert len(list((tmp_path / 'shown').iterdir())) == 4
