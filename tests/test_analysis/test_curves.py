import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmssm.analysis.curves import read_run
from mmssm.visualization.curves import plot_runs

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/plot_logs.py'
ITERATIONS, INTERVAL = 75, 15


def records(epochs, loss=1.0):
    """What mmengine logs for these epochs of 75 iterations."""
    for epoch in epochs:
        for step in range(INTERVAL, ITERATIONS + 1, INTERVAL):
            step += (epoch - 1) * ITERATIONS
            yield dict(
                lr=1e-3, loss=loss / step, epoch=epoch, iter=step, step=step
            )
        yield {
            'coco/bbox_mAP': epoch / 10,
            'coco/segm_mAP': epoch / 20,
            'step': epoch,
        }


def write_log(folder, lines):
    log = folder / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return log


@pytest.fixture
def work_dir(tmp_path):
    folder = tmp_path / 'my run'
    write_log(folder / '20260101_000000', records([1, 2, 3]))
    return folder


def test_read_run_counts_in_epochs(work_dir):
    run = read_run(work_dir)
    assert run.name == 'my run'
    assert run.iterations_per_epoch() == ITERATIONS
    positions, values = run.line('loss', in_epochs=True)
    assert positions[-1] == pytest.approx(3)
    assert values[0] == pytest.approx(1 / INTERVAL)
    positions, values = run.line('coco/bbox_mAP', in_epochs=True)
    assert positions.tolist() == [1, 2, 3]
    assert values.tolist() == [0.1, 0.2, 0.3]
    assert run.line('unheard of', in_epochs=True) is None


def test_runs_by_epochs_can_be_counted_in_iterations(work_dir):
    run = read_run(work_dir)
    assert run.line('loss', in_epochs=False)[0].tolist() == [
        *range(15, 226, 15)
    ]
    assert run.line('coco/bbox_mAP', in_epochs=False)[0].tolist() == [
        75,
        150,
        225,
    ]


@pytest.mark.parametrize(
    'start', ['', '20260101_000000', '20260101_000000/vis_data/scalars.json']
)
def test_read_run_takes_log_start_and_work_dir(work_dir, start):
    run = read_run(work_dir / start)
    assert run.name == 'my run'
    assert len(run.train['loss'].steps) == 15


def test_resumed_run_is_one_line(work_dir):
    # Killed in epoch 4, of which one log line is left; goes on from epoch 3.
    log = work_dir / '20260101_000000/vis_data/scalars.json'
    half = dict(lr=1e-3, loss=99.0, epoch=4, iter=240, step=240)
    log.write_text(log.read_text() + json.dumps(half) + '\n{"lr": 0.00')
    write_log(work_dir / '20260101_010000', records([4, 5]))
    run = read_run(work_dir)
    assert run.train['loss'].steps == list(range(15, 376, 15))
    assert max(run.train['loss'].values) < 1
    assert run.val['coco/bbox_mAP'].steps == [1, 2, 3, 4, 5]
    assert run.iterations_per_epoch() == ITERATIONS


# mmengine's logger counts evaluations in epochs, all of them 0 in a training
# by iterations, unless told otherwise; mmseg's schedules tell it.
@pytest.mark.parametrize('evaluated', [[100, 200], [0, 0]])
def test_run_by_iterations_stays_in_iterations(tmp_path, evaluated):
    lines = []
    for step, logged in zip((100, 200), evaluated):
        lines += [
            dict(lr=1.0, loss=2.0, iter=step - 50, step=step - 50),
            dict(lr=1.0, loss=2.0, iter=step, step=step),
            dict(mIoU=40.0, step=logged),
        ]
    write_log(tmp_path / 'run' / '1', lines)
    run = read_run(tmp_path / 'run')
    assert run.line('loss', in_epochs=False)[0].tolist() == [50, 100, 150, 200]
    assert run.line('mIoU', in_epochs=False)[0].tolist() == [100, 200]


def test_resumed_run_by_iterations_keeps_its_evaluations(tmp_path):
    for start, step in enumerate((100, 200)):
        train = dict(lr=1.0, loss=2.0, iter=step, step=step)
        lines = [train, dict(mIoU=40.0, step=0)]
        write_log(tmp_path / 'run' / f'{start}', lines)
    # A start so short that it logged an evaluation only.
    write_log(tmp_path / 'run' / '2', [dict(mIoU=50.0, step=0)])
    run = read_run(tmp_path / 'run')
    positions, values = run.line('mIoU', in_epochs=False)
    assert positions.tolist() == [100, 200]
    assert values.tolist() == [40, 50]


def test_evaluations_in_iterations_are_placed_at_epochs(tmp_path):
    lines = list(records([1, 2]))
    for line in lines:
        if 'lr' not in line:
            line['step'] *= ITERATIONS
    write_log(tmp_path / 'run' / '1', lines)
    run = read_run(tmp_path / 'run')
    positions = run.line('coco/bbox_mAP', in_epochs=True)[0]
    assert positions.tolist() == [1, 2]


@pytest.mark.parametrize('metric', ['accuracy/top1', 'mIoU', 'coco/bbox_mAP'])
def test_every_tasks_metric_is_drawn_by_default(tmp_path, metric):
    lines = []
    for epoch in (1, 2):
        step = 10 * epoch
        lines += [
            dict(lr=1.0, loss=2.0, acc=5.0, epoch=epoch, iter=step, step=step),
            {metric: 40.0, 'aAcc': 50.0, 'time': 0.1, 'step': epoch},
        ]
    write_log(tmp_path / 'run' / '1', lines)
    out = tmp_path / 'curve.svg'
    plot_runs([tmp_path / 'run'], out)
    text = out.read_text()
    assert all(f'<!-- {key} -->' in text for key in ('loss', metric, 'epoch'))
    assert 'aAcc' not in text


def test_runs_of_both_kinds_are_drawn_over_iterations(work_dir, tmp_path):
    lines = [dict(lr=1.0, loss=2.0, iter=step, step=step) for step in (50, 99)]
    other = tmp_path / 'other'
    write_log(other / '1', lines)
    out = tmp_path / 'curve.svg'
    plot_runs([work_dir, other], out)
    text = out.read_text()
    assert '<!-- iteration -->' in text
    assert '<!-- epoch -->' not in text


@pytest.mark.parametrize('suffix', ['png', 'svg'])
def test_plot_runs_draws_every_line(work_dir, tmp_path, suffix):
    other = tmp_path / 'other'
    write_log(other / '20260101_000000', records([1, 2], loss=2.0))
    out = tmp_path / 'figures' / f'curve.{suffix}'
    plot_runs([work_dir, other], out)
    if suffix == 'png':
        assert out.read_bytes().startswith(b'\x89PNG')
    else:
        text = out.read_text()
        for run in ('my run', 'other'):
            # Of the only loss, the axis tells the name.
            for key in ('', ': coco/bbox_mAP', ': coco/segm_mAP'):
                assert f'<!-- {run}{key} -->' in text
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize('records,marked', [(1, True), (2, False)])
def test_a_single_value_is_visible(tmp_path, records, marked):
    lines = [
        dict(lr=1.0, loss=2.0, iter=step, step=step)
        for step in range(1, records + 1)
    ]
    write_log(tmp_path / 'run' / '1', lines)
    plot_runs([tmp_path / 'run'], tmp_path / 'curve.svg')
    # A marker has the line's color inside.
    text = (tmp_path / 'curve.svg').read_text()
    assert ('fill: #1f77b4' in text) == marked


def test_tool_draws_the_chosen_keys(work_dir, tmp_path):
    out = tmp_path / 'curve.svg'
    done = subprocess.run(
        [
            sys.executable,
            TOOL,
            work_dir,
            '--keys',
            'coco/segm_mAP',
            '--out',
            out,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{out}\n'
    assert 'coco/segm_mAP' in out.read_text()
    assert 'bbox' not in out.read_text()


def test_missing_log_is_a_one_line_error(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, tmp_path / 'nowhere'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith('plot_logs.py: error: no training log at')
    assert done.stderr.count('\n') == 1


def test_unknown_key_is_refused(work_dir, tmp_path):
    with pytest.raises(ValueError, match='no run logged .*coco/bbox_mAP,'):
        plot_runs([work_dir], tmp_path / 'curve.png', ['coco/box_mAP'])


def test_foreign_file_is_refused(tmp_path):
    log = tmp_path / 'notes.txt'
    log.write_text('hello\nworld\n')
    with pytest.raises(ValueError, match='is not a log of mmengine'):
        read_run(log)


def test_empty_log_is_refused(tmp_path):
    log = write_log(tmp_path, [])
    with pytest.raises(ValueError, match='nothing was logged yet'):
        read_run(log)


@pytest.mark.parametrize('name', ['curve', 'curve.xyz'])
def test_unknown_format_is_refused(work_dir, tmp_path, name):
    with pytest.raises(ValueError, match='its suffix must be one of .*png'):
        plot_runs([work_dir], tmp_path / name)
