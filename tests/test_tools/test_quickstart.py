import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'tools/quickstart.sh'
INFO = '01/01 00:00:00 - mmengine - INFO - '
# By task: config, what the training's log says after an epoch, what the
# terminal says then, and results of both tests.
TASKS = dict(
    detection=(
        'mask-rcnn_vmamba-mini_mini-coco',
        'coco/bbox_mAP: 0.7004  coco/bbox_mAP_50: 0.9449  '
        'coco/segm_mAP: 0.7560  coco/segm_mAP_50: 1.0000',
        'box mAP 0.7004, mask mAP 0.7560',
        {
            'coco/bbox_mAP': (0.7004, 0.7204),
            'coco/bbox_mAP_50': (0.9449, 0.9551),
            'coco/segm_mAP': (0.756, 0.776),
            'coco/segm_mAP_50': (1.0, 1.0),
        },
    ),
    segmentation=(
        'vmamba-mini_upernet_mini-ade20k',
        'aAcc: 97.1000  mIoU: 82.3400  mAcc: 90.0000',
        'mIoU 82.3400',
        {'aAcc': (97.1, 97.5), 'mIoU': (82.34, 84.5)},
    ),
    classification=(
        'vmamba-mini_mini-in1k',
        'accuracy/top1: 96.3351',
        'accuracy/top1 96.3351',
        {'accuracy/top1': (96.3351, 96.8586)},
    ),
    change=(
        'changemamba_vmamba-mini_mini-levir-cd-plus',
        'precision: 0.8614  recall: 0.8391  F1: 0.8501  IoU: 0.7393  '
        'OA: 0.9702  kappa: 0.8342',
        'F1 0.8501',
        {
            'F1': (0.8501, 0.8602),
            'IoU': (0.7393, 0.7547),
            'OA': (0.9702, 0.9721),
            'kappa': (0.8342, 0.8446),
        },
    ),
)
REPORT = dict(
    detection=[
        'box mAP: 0.70 0.72',
        'box AP50: 0.94 0.96',
        'mask mAP: 0.76 0.78',
        'mask AP50: 1.00 1.00',
    ],
    segmentation=['mIoU: 82.34 84.50', 'pixel accuracy: 97.10 97.50'],
    classification=['top-1 accuracy: 96.34 96.86'],
    change=['F1: 0.85 0.86', 'IoU: 0.74 0.75', 'kappa: 0.83 0.84'],
)


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/usr/bin/env bash\n{text}\n')
    path.chmod(0o755)


@pytest.fixture
def clone(tmp_path):
    """A repository with the real script and stand-ins for what it calls."""
    folder = tmp_path / 'my clone'
    tools = folder / 'tools'
    tools.mkdir(parents=True)
    shutil.copy(SCRIPT, tools)
    executable(tools / 'setup_env.sh', 'echo set up')
    train, test = [], []
    for config, metrics, _, results in TASKS.values():
        train.append(f"""if [[ $1 = *{config}* ]]; then
        echo '{INFO}Epoch(val) [1][10/10]    {metrics}'; fi""")
        plain, both = (table(results, modes) for modes in (1, 2))
        test.append(f"""if [[ $1 = *{config}* ]]; then
        if [ "${{6:-}}" = --tta ]; then echo '{both}'
        else echo '{plain}'; fi; fi""")
    executable(
        tools / 'dist_train.sh',
        f"""[ "$2 $3" = '2 --work-dir' ] && [ "$5" = --resume ] || exit 9
        echo unimportant
        echo '{INFO}Epoch(train)  [1][15/75]  lr: 1.0e-03  eta: 0:05:12  \
time: 0.5  loss: 3.2720  loss_cls: 1.2'
        touch "$4/epoch_1.pth"
        echo "$4/epoch_1.pth" > "$4/last_checkpoint"
        {chr(10).join(train)}""",
    )
    executable(
        tools / 'dist_test.sh',
        f"""[ -f "$2" ] && [ "$3" = 2 ] || exit 9
        echo '{INFO}Epoch(test) [15/19]    eta: 0:00:01  time: 0.4'
        {chr(10).join(test)}""",
    )
    executable(
        folder / '.venv/bin/python',
        """while [ $# -gt 0 ]; do
          if [ "$1" = --out ]; then touch "$2"; fi
          shift
        done""",
    )
    return folder


def table(results, modes):
    """What a test prints, see ``mmssm.engine.results.as_table``."""
    titles = ['single scale', '--tta'][:modes]
    lines = ['  '.join(['', *titles])]
    for name, values in results.items():
        lines.append('  '.join([name, *map(str, values[:modes])]))
    return '\n'.join(lines)


def quickstart(script, *arguments, cwd='/'):
    return subprocess.run(
        ['bash', script, *arguments], cwd=cwd, capture_output=True, text=True
    )


def results(done):
    """What the script prints last, with single spaces."""
    assert done.returncode == 0, done.stderr
    text = done.stdout.partition('== results on the test set\n')[2]
    return [' '.join(line.split()) for line in text.strip().splitlines()]


def expected(task, work):
    return [
        f'{task} single scale --tta',
        *REPORT[task],
        str(work / task / 'predictions.png'),
        str(work / task / 'curve.png'),
    ]


@pytest.mark.parametrize('chosen', [None, 'my results'])
def test_ends_with_the_results_and_the_pictures(clone, tmp_path, chosen):
    arguments, work = [], clone / 'work_dirs/quickstart'
    if chosen:
        arguments, work = ['--work-dir', chosen], tmp_path / chosen
    done = quickstart(clone / 'tools/quickstart.sh', *arguments, cwd=tmp_path)
    assert results(done) == expected('detection', work)
    assert (work / 'detection/predictions.png').is_file()
    assert (work / 'detection/curve.png').is_file()
    lines = done.stdout.splitlines()
    assert '   epoch 1, iteration 15/75: loss 3.2720, time left 0:05:12' in (
        lines
    )
    assert '   batch 15/19, time left 0:00:01' in lines
    assert 'unimportant' not in done.stdout
    assert 'unimportant' in (work / 'detection/train.log').read_text()


@pytest.mark.parametrize('task', TASKS)
def test_one_task(clone, task):
    done = quickstart(clone / 'tools/quickstart.sh', '--task', task)
    assert results(done) == expected(task, clone / 'work_dirs/quickstart')
    assert f'   epoch 1, test set: {TASKS[task][2]}' in done.stdout


def test_all_tasks(clone):
    done = quickstart(clone / 'tools/quickstart.sh', '--task', 'all')
    work = clone / 'work_dirs/quickstart'
    assert [line for line in results(done) if line] == [
        line for task in TASKS for line in expected(task, work)
    ]


def test_failed_step_stops_with_the_end_of_its_log(clone):
    executable(clone / 'tools/dist_train.sh', 'echo the reason; exit 3')
    done = quickstart(clone / 'tools/quickstart.sh')
    assert done.returncode == 1
    assert 'the reason' in done.stderr
    assert 'quickstart.sh: this step failed' in done.stderr.splitlines()[-1]
    assert 'AP50' not in done.stdout


def test_missing_result_stops(clone):
    executable(clone / 'tools/dist_test.sh', 'echo nothing found')
    done = quickstart(clone / 'tools/quickstart.sh')
    assert done.returncode != 0
    assert 'no result coco/bbox_mAP in' in done.stderr
    assert 'AP50:' not in done.stdout


def test_help_says_what_and_how_long():
    done = quickstart(SCRIPT, '--help')
    assert done.returncode == 0
    assert 'minutes' in done.stdout
    assert '--work-dir DIR' in done.stdout
    assert all(task in done.stdout for task in TASKS)


@pytest.mark.parametrize(
    'arguments',
    [
        ['--workdir', 'x'],
        ['--work-dir'],
        ['x'],
        ['--task'],
        ['--task', 'tracking'],
    ],
)
def test_bad_arguments_are_one_line_errors(arguments):
    done = quickstart(SCRIPT, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith('quickstart.sh: ')
    assert done.stderr.count('\n') == 1
    assert done.stdout == ''
