"""tools/visualization/vis_routes.py as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmssm.visualization.routes import DEFAULT_ROUTES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [
                sys.executable,
                str(ROOT / 'tools/visualization/vis_routes.py'),
                *arguments,
            ],
            env=dict(os.environ, CUDA_VISIBLE_DEVICES=''),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_default_is_the_picture_of_the_readme(run, tmp_path):
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'routes.png\n'
    with Image.open(tmp_path / 'routes.png') as drawn:
        size = drawn.size
    kept = ROOT / 'docs/images/routes.png'
    with Image.open(kept) as picture:
        assert picture.size == size
    assert kept.stat().st_size < 300_000


def test_chosen_routes_on_a_chosen_map(run, tmp_path):
    done = run('--size', '5', '8', '--routes', 'h', 'w3', '--out', 'my.svg')
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'my.svg\n'
    drawn = (tmp_path / 'my.svg').read_text()
    assert '<!-- h -->' in drawn and '<!-- w3 -->' in drawn
    assert '<!-- mean 14.6, geometric mean 14.0 -->' in drawn
    for name in set(DEFAULT_ROUTES) - {'h'}:
        assert f'<!-- {name} -->' not in drawn


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('--routes', 'nowhere'), "unknown route 'nowhere'; known: "),
        (('--size', '-3', '4'), 'a route needs a map, got -3 x 4 tokens'),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f'vis_routes.py: error: {message}')
    assert done.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())
