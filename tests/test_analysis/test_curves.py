import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmssm.analysis.curves import plot_runs, read_run

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
    positions, values = run.line('loss')
    assert positions[-1] == pytest.approx(3)
    assert values[0] == pytest.approx(1 / INTERVAL)
    positions, values = run.line('coco/bbox_mAP')
    assert positions.tolist() == [1, 2, 3]
    assert values.tolist() == [0.1, 0.2, 0.3]
    assert run.line('unheard of') is None


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


def test_run_by_iterations_stays_in_iterations(tmp_path):
    lines = [
        dict(lr=1.0, loss=2.0, iter=step, step=step) for step in (50, 100)
    ]
    write_log(tmp_path / 'run' / '1', lines + [{'mIoU': 40.0, 'step': 100}])
    run = read_run(tmp_path / 'run')
    assert run.line('loss')[0].tolist() == [50, 100]
    assert run.line('mIoU')[0].tolist() == [100]


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
            for key in ('loss', 'coco/bbox_mAP', 'coco/segm_mAP'):
                assert f'{run}: {key}' in text
    assert [path.name for path in out.parent.iterdir()] == [out.name]


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
