import json
import multiprocessing
import os
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

MODEL = dict(checkpoint='/a.pth', modified=1.0, settings='x')


def test_both_modes_of_a_model_meet(tmp_path):
    first = keep_result(tmp_path, MODEL, PLAIN, dict(mIoU=80.0, note='text'))
    assert first == {PLAIN: dict(mIoU=80.0)}
    both = keep_result(tmp_path, MODEL, AUGMENTED, dict(mIoU=82.0))
    assert both == {PLAIN: dict(mIoU=80.0), AUGMENTED: dict(mIoU=82.0)}
    # A later test of the same kind takes the place of the earlier one.
    again = keep_result(tmp_path, MODEL, PLAIN, dict(mIoU=81.0))
    assert again[PLAIN] == dict(mIoU=81.0)
    assert len(json.loads((tmp_path / FILE_NAME).read_text())) == 3


@pytest.mark.parametrize(
    'other',
    [dict(checkpoint='/b.pth'), dict(modified=2.0), dict(settings='y')],
)
def test_another_models_result_is_not_shown(tmp_path, other):
    keep_result(tmp_path, MODEL, PLAIN, dict(mIoU=80.0))
    shown = keep_result(tmp_path, MODEL | other, AUGMENTED, dict(mIoU=82.0))
    assert shown == {AUGMENTED: dict(mIoU=82.0)}


@pytest.mark.parametrize('content', ['not json', '{"a": 1}', '[1]'])
def test_a_foreign_file_is_left_alone(tmp_path, content, capsys):
    (tmp_path / FILE_NAME).write_text(content)
    shown = keep_result(tmp_path, MODEL, PLAIN, dict(mIoU=80.0))
    assert shown == {PLAIN: dict(mIoU=80.0)}
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
    shown = keep_result(tmp_path / 'file', MODEL, PLAIN, dict(mIoU=80.0))
    assert shown == {PLAIN: dict(mIoU=80.0)}
    assert 'are not kept' in capsys.readouterr().err


def _keep(folder, number):
    keep_result(folder, MODEL, PLAIN, dict(number=number))


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
        {PLAIN: dict(mIoU=80.0, aAcc=90.5), AUGMENTED: dict(mIoU=82.0)}
    )
    assert [line.split() for line in table.splitlines()] == [
        ['single', 'scale', '--tta'],
        ['mIoU', '80.0000', '82.0000'],
        ['aAcc', '90.5000', '-'],
    ]
    assert as_table({AUGMENTED: dict(mIoU=82.0)}).split() == [
        '--tta',
        'mIoU',
        '82.0000',
    ]


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
