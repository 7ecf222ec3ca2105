"""Scores of classes, which are lists, tables in the log, or a matrix."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prettytable import PrettyTable
from terminaltables import AsciiTable

from mmssm.apis import evaluate
from mmssm.apis.results import FILE_NAME
from mmssm.apis.scores import LogReader, explain_missing, read_scores
from mmssm.utils import ConfigError

NAMES = ('ant', 'a fox ', 'owl')


@pytest.fixture
def log():
    reader, logger = LogReader(), logging.getLogger('scores')
    logger.setLevel(logging.INFO)
    logger.addHandler(reader)
    yield reader, logger
    logger.removeHandler(reader)


def test_mmsegs_table(log):
    reader, logger = log
    table = PrettyTable()
    table.add_column('Class', NAMES)
    table.add_column('IoU', [50.25, float('nan'), 0.0])
    table.add_column('Note', ['a', 'b', 'c'])
    logger.info('\n' + table.get_string())
    scores = read_scores(dict(mIoU=25.0), reader, NAMES)
    assert scores.metrics == dict(mIoU=25.0)
    (column,) = scores.per_class
    assert column == 'IoU' and list(scores.per_class['IoU']) == list(NAMES)
    assert scores.per_class['IoU']['ant'] == 50.25


def test_mmdets_tables_of_boxes_and_masks(log):
    reader, logger = log
    for kind, value in (('bbox', 0.5), ('segm', 0.25)):
        logger.info(f'Evaluating {kind}...')
        rows = [['category', 'mAP', 'mAP_s']]
        rows += [[name, f'{value}', 'nan'] for name in NAMES]
        logger.info('\n' + AsciiTable(rows).table)
    returned = {f'coco/{name}_precision': 0.25 for name in NAMES}
    scores = read_scores(
        returned | {'coco/bbox_mAP': 0.5, 'coco/other_precision': 1.0},
        reader,
        NAMES,
    )
    assert scores.metrics == {'coco/bbox_mAP': 0.5, 'coco/other_precision': 1}
    assert scores.per_class['bbox_mAP'] == dict.fromkeys(NAMES, 0.5)
    assert scores.per_class['segm_mAP'] == dict.fromkeys(NAMES, 0.25)


def test_columns_of_several_tables_are_all_kept(log):
    reader, logger = log
    for values in ('0.1', 'nan'), ('0.2', 'nan'), ('0.2', 'nan'):
        rows = [['category', 'mAP'], *zip(NAMES, values)]
        logger.info('\n' + AsciiTable(rows).table)
    found = read_scores({}, reader, NAMES).per_class
    assert list(found) == ['mAP', 'mAP_2']
    assert found['mAP']['ant'] == 0.1 and found['mAP_2']['ant'] == 0.2


def test_a_matrix_is_not_silently_lost(capsys):
    metrics = {name: torch.eye(3, dtype=torch.int64) for name in 'ab'}
    metrics['b'] = 2 * metrics['b']
    matrix = read_scores(metrics, LogReader(), NAMES).confusion_matrix
    assert matrix['counts'][0] == [1, 0, 0]
    assert 'b: only the first' in capsys.readouterr().err
    metrics = dict(a=torch.full((3, 3), float('nan')))
    assert read_scores(metrics, LogReader(), NAMES).confusion_matrix is None
    assert 'a: not kept' in capsys.readouterr().err


def test_a_table_of_something_else_is_left_out(log):
    reader, logger = log
    logger.info('\n' + AsciiTable([['param', 'lr'], ['stem', '0.1']]).table)
    assert read_scores({}, reader, NAMES).per_class == {}


def test_metrics_outlive_a_table_that_cannot_be_read(log, capsys):
    reader, logger = log
    logger.info('\n' + AsciiTable([['category', 'mAP'], ['1', '0.5']]).table)
    spoiled = dict(msg='two: %s %s', args=(1,))  # logging reports it
    reader.emit(logging.makeLogRecord(spoiled))
    scores = read_scores(dict(mAP=0.5), reader, [1, 2])
    assert scores.metrics == dict(mAP=0.5)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if 'warn' in x]
    assert line.startswith('warning: not all scores of the classes can be')


def test_mmpretrains_lists_and_matrix():
    metrics = {
        'single-label/precision_classwise': [10.0, 20.0, 30.0],
        'confusion_matrix/result': torch.eye(3, dtype=torch.int64),
        'top1': torch.tensor(5.0),
        'note': 'text',
    }
    scores = read_scores(metrics, LogReader(), NAMES)
    assert scores.metrics == dict(top1=5.0)
    assert scores.per_class == {
        'single-label/precision': dict(zip(NAMES, [10.0, 20.0, 30.0]))
    }
    assert scores.confusion_matrix == dict(
        classes=list(NAMES), counts=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    )
    # Without names, or with others, labels are written.
    for names in (None, ('one',)):
        scores = read_scores(metrics, LogReader(), names)
        assert scores.confusion_matrix['classes'] == ['0', '1', '2']


def test_reasons_why_there_are_no_scores(log):
    reader, logger = log
    metric = SimpleNamespace(format_only=True, outfile_prefix='out/x')
    (note,) = explain_missing([metric], reader)
    assert 'format_only=True' in note and 'out/x' in note
    assert explain_missing([], reader) == ['the test_evaluator returned none']
    logger.error('The testing results of the whole dataset is empty.')
    (note,) = explain_missing([], reader)
    assert note.startswith('the model found nothing in any test image')


def run(model, folder, **options):
    """Test a model on a few images; what is kept of it."""
    options = {'test_dataloader.dataset.indices': 4} | options
    evaluate(*model, work_dir=str(folder), options=options)
    *_, entry = json.loads((Path(folder) / FILE_NAME).read_text())
    return entry


def test_what_the_metrics_of_the_libraries_give(
    mini_tasks, untrained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(mini_tasks[0])
    entry = run(untrained['mmseg'], tmp_path / 'seg')
    assert len(entry['per_class']['IoU']) == 11
    assert re.search(r'\nclass +IoU +Acc\n', capsys.readouterr().out)
    evaluator = [
        dict(type='SingleLabelMetric', average=None, items=('recall',)),
        dict(type='ConfusionMatrix'),
    ]
    entry = run(
        untrained['mmpretrain'], tmp_path / 'cls', test_evaluator=evaluator
    )
    assert len(entry['per_class']['single-label/recall']) == 10
    counts = torch.tensor(entry['confusion_matrix']['counts'])
    assert counts.shape == (10, 10) and counts.sum() == 4
    assert 'confusion matrix, single scale' in capsys.readouterr().out


def test_nothing_found_and_results_only_written(
    mini_tasks, untrained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(mini_tasks[0])
    high = {'model.test_cfg.rcnn.score_thr': 1.0}
    run(untrained['mmdet'], tmp_path / 'a', **high)
    assert '\nno metrics: the model found nothing' in capsys.readouterr().out
    only = {'test_evaluator.format_only': True}
    with pytest.raises(ConfigError, match='set test_evaluator.outfile_prefix'):
        run(untrained['mmdet'], tmp_path / 'b', **only)
    with pytest.raises(ConfigError, match='set test_evaluator.output_dir'):
        run(untrained['mmseg'], tmp_path / 'c', **only)
    only['test_evaluator.output_dir'] = str(tmp_path / 'maps')
    run(untrained['mmseg'], tmp_path / 'd', **only)
    assert f'writes results to {tmp_path}/maps' in capsys.readouterr().out
