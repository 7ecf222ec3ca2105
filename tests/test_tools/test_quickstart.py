import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'tools/quickstart.sh'
TRAIN = '01/01 00:00:00 - mmengine - INFO - '
METRICS = '  '.join(
    f'coco/{kind}_{name}: {value}'
    for kind, values in dict(
        bbox=('0.7004', '0.9449', '0.8440'),
        segm=('0.7550', '1.0000', '0.8950'),
    ).items()
    for name, value in zip(('mAP', 'mAP_50', 'mAP_75'), values)
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
    executable(
        tools / 'dist_train.sh',
        f"""[ "$2 $3" = '2 --work-dir' ] && [ "$5" = --resume ] || exit 9
        echo unimportant
        echo '{TRAIN}Epoch(train)  [1][15/75]  lr: 1.0e-03  eta: 0:05:12  \
time: 0.5  loss: 3.2720  loss_cls: 1.2'
        echo '{TRAIN}Epoch(val) [1][10/10]    {METRICS}'
        touch "$4/epoch_1.pth"
        echo "$4/epoch_1.pth" > "$4/last_checkpoint" """,
    )
    executable(
        tools / 'dist_test.sh',
        f"""[ -f "$2" ] && [ "$3" = 2 ] || exit 9
        echo '{TRAIN}Epoch(test) [10/10]    {METRICS}'""",
    )
    executable(
        folder / '.venv/bin/python',
        """while [ $# -gt 0 ]; do
          if [ "$1" = --out ]; then touch "$2"; fi
          shift
        done""",
    )
    return folder


def quickstart(script, *arguments, cwd='/'):
    return subprocess.run(
        ['bash', script, *arguments], cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize('chosen', [None, 'my results'])
def test_ends_with_the_results_and_the_pictures(clone, tmp_path, chosen):
    arguments, work = [], clone / 'work_dirs/quickstart'
    if chosen:
        arguments, work = ['--work-dir', chosen], tmp_path / chosen
    done = quickstart(clone / 'tools/quickstart.sh', *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-4:] == [
        'box AP50: 0.94',
        'mask AP50: 1.00',
        str(work / 'detections.png'),
        str(work / 'curve.png'),
    ]
    assert (work / 'detections.png').is_file()
    assert (work / 'curve.png').is_file()
    assert '   box  0.700  0.944  0.844' in lines
    assert '  mask  0.755  1.000  0.895' in lines
    progress = '   epoch 1, iteration 15/75: loss 3.2720, time left 0:05:12'
    assert progress in lines
    assert 'unimportant' not in done.stdout
    assert 'unimportant' in (work / 'train.log').read_text()


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
    assert 'AP50: ' not in done.stdout


def test_help_says_what_and_how_long():
    done = quickstart(SCRIPT, '--help')
    assert done.returncode == 0
    assert 'minutes' in done.stdout
    assert '--work-dir DIR' in done.stdout


@pytest.mark.parametrize(
    'arguments', [['--workdir', 'x'], ['--work-dir'], ['x']]
)
def test_bad_arguments_are_one_line_errors(arguments):
    done = quickstart(SCRIPT, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith('quickstart.sh: ')
    assert done.stderr.count('\n') == 1
    assert done.stdout == ''
