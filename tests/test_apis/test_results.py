import json
import multiprocessing
import os
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmssm.apis import evaluate, train
from mmssm.apis.results import (
    AUGMENTED,
    FILE_NAME,
    PLAIN,
    as_table,
    identify,
    keep_result,
)
from mmssm.apis.scores import Scores

MODEL = dict(checkpoint='/a.pth', modified=1.0, settings='x')


def miou(value):
    return Scores(dict(mIoU=value))


def test_both_modes_of_a_model_meet(tmp_path):
    first = Scores(
        dict(mIoU=80.0),
        dict(IoU=dict(sky=70.0)),
        dict(classes=['a', 'b'], counts=[[1, 2], [3, 4]]),
    )
    assert keep_result(tmp_path, MODEL, PLAIN, first) == {PLAIN: first}
    both = keep_result(tmp_path, MODEL, AUGMENTED, miou(82.0))
    assert both == {PLAIN: first, AUGMENTED: miou(82.0)}
    # A later test of the same kind takes the place of the earlier one.
    again = keep_result(tmp_path, MODEL, PLAIN, miou(81.0))
    assert again[PLAIN] == miou(81.0)
    entries = json.loads((tmp_path / FILE_NAME).read_text())
    assert len(entries) == 3
    assert entries[0]['per_class'] == dict(IoU=dict(sky=70.0))
    assert 'per_class' not in entries[1]


def test_what_is_not_a_number_is_null_and_a_dash(tmp_path):
    nan = float('nan')
    scores = Scores(
        dict(mIoU=nan, loss=float('inf')),
        dict(IoU=dict(sky=70.0, sea=nan)),
    )
    # As written before.
    old = dict(mode=PLAIN, metrics=dict(mIoU=nan))
    (tmp_path / FILE_NAME).write_text(json.dumps([old]))
    for _ in range(2):  # also when the file is read again
        results = keep_result(tmp_path, MODEL, PLAIN, scores)
        text = (tmp_path / FILE_NAME).read_text()
        assert 'NaN' not in text and 'Infinity' not in text
        table = [line.split() for line in as_table(results).splitlines()]
        assert ['mIoU', '-'] in table and ['loss', '-'] in table
        assert ['sea', '-'] in table and ['sky', '70.0000'] in table
    first, second, _ = json.loads(text)
    assert first['metrics'] == dict(mIoU=None)
    assert second['metrics'] == dict(mIoU=None, loss=None)
    assert second['per_class'] == dict(IoU=dict(sky=70.0, sea=None))
    # Beside another mode's, whose values come from the file.
    both = as_table(keep_result(tmp_path, MODEL, AUGMENTED, scores))
    assert re.search('^mIoU +- +-$', both, re.M)


@pytest.mark.parametrize(
    'other',
    [dict(checkpoint='/b.pth'), dict(modified=2.0), dict(settings='y')],
)
def test_another_models_result_is_not_shown(tmp_path, other):
    keep_result(tmp_path, MODEL, PLAIN, miou(80.0))
    shown = keep_result(tmp_path, MODEL | other, AUGMENTED, miou(82.0))
    assert shown == {AUGMENTED: miou(82.0)}


@pytest.mark.parametrize('content', ['not json', '{"a": 1}', '[1]'])
def test_a_foreign_file_is_left_alone(tmp_path, content, capsys):
    (tmp_path / FILE_NAME).write_text(content)
    shown = keep_result(tmp_path, MODEL, PLAIN, miou(80.0))
    assert shown == {PLAIN: miou(80.0)}
    assert (tmp_path / FILE_NAME).read_text() == content
    assert 'are not kept' in capsys.readouterr().err


def config(**changes):
    loader = dict(batch_size=8, dataset=dict(type='Set', data_root='a'))
    return Config(
        dict(model=dict(type='Net'), test_dataloader=loader) | changes
    )


def test_identity_of_a_checkpoint(tmp_path):
    file, link = tmp_path / 'a.pth', tmp_path / 'latest.pth'
    file.write_bytes(b'x')
    link.symlink_to(file)
    identity = identify(config(), str(file))
    assert identity['checkpoint'] == str(file)
    assert identify(config(), str(link)) == identity
    os.utime(file, (1, 1))
    assert identify(config(), str(file)) != identity
    assert identify(config(), 'https://x/y.pth')['modified'] is None


@pytest.mark.parametrize(
    ('changes', 'same'),
    [
        (dict(work_dir='elsewhere'), True),
        (
            dict(
                test_dataloader=dict(
                    batch_size=1, dataset=dict(type='Set', data_root='a')
                )
            ),
            True,
        ),
        (
            dict(
                test_dataloader=dict(
                    batch_size=8, dataset=dict(type='Set', data_root='b')
                )
            ),
            False,
        ),
        (dict(model=dict(type='Other')), False),
        (dict(data_preprocessor=dict(mean=[0, 0, 0])), False),
        (dict(test_evaluator={1: 'a', 'b': 2}), False),
    ],
)
def test_identity_of_settings(changes, same):
    url = 'https://x/y.pth'
    first = identify(config(), url)
    assert (identify(config(**changes), url) == first) is same


def test_a_folder_that_cannot_be_written_does_not_lose_the_result(
    tmp_path, capsys
):
    (tmp_path / 'file').write_text('')
    shown = keep_result(tmp_path / 'file', MODEL, PLAIN, miou(80.0))
    assert shown == {PLAIN: miou(80.0)}
    assert 'are not kept' in capsys.readouterr().err


def _keep(folder, number):
    keep_result(folder, MODEL, PLAIN, Scores(dict(number=number)))


def test_several_processes_keep_their_results(tmp_path):
    processes = [
        multiprocessing.Process(target=_keep, args=(tmp_path, number))
        for number in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    entries = json.loads((tmp_path / FILE_NAME).read_text())
    assert {entry['metrics']['number'] for entry in entries} == set(range(8))


def test_table():
    table = as_table(
        {PLAIN: Scores(dict(mIoU=80.0, aAcc=90.5)), AUGMENTED: miou(82.0)}
    )
    assert [line.split() for line in table.splitlines()] == [
        ['single', 'scale', '--tta'],
        ['mIoU', '80.0000', '82.0000'],
        ['aAcc', '90.5000', '-'],
    ]
    assert as_table({AUGMENTED: miou(82.0)}).split() == [
        '--tta',
        'mIoU',
        '82.0000',
    ]


def test_table_of_classes():
    table = as_table(
        {
            PLAIN: Scores({}, dict(IoU={'sky': 70.0, 'a wall': 60.0})),
            AUGMENTED: Scores({}, dict(IoU={'sky': 71.0}, Acc={'sky': 80.0})),
        }
    )
    lines = table.split('\n\n')[1].splitlines()
    assert [re.split(r' {2,}', line) for line in lines] == [
        ['class', 'IoU', 'IoU --tta', 'Acc', 'Acc --tta'],
        ['sky', '70.0000', '71.0000', '-', '80.0000'],
        ['a wall', '60.0000', '-', '-', '-'],
    ]
    assert len({len(line) for line in lines}) == 1


def test_table_of_a_small_confusion_matrix():
    matrix = dict(classes=['ant', 'fox'], counts=[[10, 2], [0, 300]])
    table = as_table({PLAIN: Scores({}, {}, matrix)})
    title, *lines = table.split('\n\n')[1].splitlines()
    assert title == 'confusion matrix, single scale'
    assert [line.split()[-3:] for line in lines] == [
        ['predicted', 'ant', 'fox'],
        ['ant', '10', '2'],
        ['fox', '0', '300'],
    ]


def test_only_the_largest_errors_of_a_wide_matrix_are_printed():
    names = [f'class {number}' for number in range(100)]
    counts = [[50 * (i == j) for j in range(100)] for i in range(100)]
    counts[7][3], counts[3][7] = 30, 20
    matrix = dict(classes=names, counts=counts)
    table = as_table({PLAIN: Scores({}, {}, matrix)})
    _, more, *lines = table.split('\n\n')[1].splitlines()
    assert more == f'the 2 largest errors; all are in {FILE_NAME}'
    assert [re.split(r' {2,}', line) for line in lines] == [
        ['truth', 'predicted', 'count', 'of the truth'],
        ['class 7', 'class 3', '30', '37.5%'],
        ['class 3', 'class 7', '20', '28.6%'],
    ]


def test_reasons_stand_below_an_empty_table():
    table = as_table({PLAIN: Scores(notes=['nothing was found'])})
    assert table.endswith('\n\nno metrics: nothing was found')


def test_testing_prints_and_keeps_the_table(toy_config, capsys):
    train(toy_config, work_dir='out', options={'train_cfg.max_epochs': 1})
    capsys.readouterr()
    evaluate(toy_config, 'out/epoch_1.pth', work_dir='out')
    printed = capsys.readouterr().out
    assert 'results of out/epoch_1.pth\n' in printed
    assert 'single scale' in printed
    (entry,) = json.loads(Path('out', FILE_NAME).read_text())
    assert entry['mode'] == PLAIN
    assert entry['metrics']['count'] == 6
