"""Searching for scan directions: from the supernet's file to a model."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmssm import LocalVMamba
from mmssm.backbones.directions import CANDIDATES

ROOT = Path(__file__).parents[2]
MINI = ROOT / 'configs' / 'mini' / 'local-vmamba-mini_mini-in1k.py'
KEYS = ROOT / 'tests' / 'data' / 'upstream_keys' / 'local_mamba.json'
CHOSEN = ('h', 'v_flip', 'w2', 'w7_flip')


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a tool in this process; returns status, stdout and stderr."""

    def run(name, *arguments):
        path = ROOT / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(path.stem, path)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.setattr(sys, 'argv', [path.name, *map(str, arguments)])
        try:
            tool.run_tool(tool.main)
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return (status, *capsys.readouterr())

    return run


def derive(run, *arguments):
    return run('search/derive_directions', *arguments)


def draw(run, *arguments):
    return run('visualization/vis_search', *arguments)


def choose(weights, chosen):
    """Weights (8, ...) of which the chosen are larger, in falling order."""
    weights = torch.zeros(weights.shape)
    for rank, name in enumerate(chosen):
        weights[CANDIDATES.index(name)] = 1.0 - 0.1 * rank
    return weights


@pytest.fixture
def supernet(tmp_path):
    """A search's checkpoint; block 2 prefers other routes."""
    arch = dict(Config.fromfile(MINI).model.backbone.arch, embed_dims=8)
    del arch['directions']
    model = LocalVMamba(arch, directions='search')
    state = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    for key, value in state.items():
        if key.endswith('merge.weights'):
            other = 'stages.1.blocks.1.' in key
            chosen = ('w7', 'h_flip', 'v', 'w2_flip') if other else CHOSEN
            state[key] = choose(value, chosen)
    path = tmp_path / 'work' / 'epoch_8.pth'
    path.parent.mkdir()
    torch.save(dict(meta=dict(iter=9), state_dict=state), path)
    return path


def original_supernet(name):
    """An original's weights, which take no memory."""
    depths, keys = json.loads(KEYS.read_text())[name].values()
    state = {}
    for key, shape in keys.items():
        stage = int(key.split('.')[1]) if 'blocks.*' in key else 0
        for block in range(depths[stage] if '*' in key else 1):
            value = torch.zeros(()).expand(shape)
            if key.endswith('multi_scan.weights'):
                value = choose(value, CHOSEN)
            state[key.replace('*', str(block))] = value
    return state


def test_from_the_search_to_the_model(run, supernet, tmp_path):
    out = tmp_path / 'configs' / 'found.py'
    status, text, _ = derive(run, supernet, '--out', out, '--base', MINI)
    assert status == 0
    lines = text.splitlines()
    assert [' '.join(line.split()) for line in (lines[1], lines[3])] == [
        'stages.0.blocks.0 h 20.3 v_flip 18.3 w2 16.6 w7_flip 15.0',
        'stages.1.blocks.1 h_flip 18.3 v 16.6 w2_flip 15.0 w7 20.3',
    ]
    assert lines[8:] == [f'written: {out}']
    cfg = Config.fromfile(out)
    assert cfg.model.backbone.arch.embed_dims == 32  # the base's
    model = MODELS.build(cfg.model.backbone)
    blocks = [block for stage in model.stages for block in stage.blocks]
    routes = [block.mixer.routes for block in blocks]
    assert routes == [
        ('h_flip', 'v', 'w2_flip', 'w7') if block == 2 else CHOSEN
        for block in range(7)
    ]
    (y,) = model(torch.rand(1, 3, 48, 48))
    assert y.isfinite().all()


def test_a_search_its_picture_and_the_model_found(run, tmp_path):
    """All of it in small: a few steps on 64 digits, then those of the model
    with the routes that were found.
    """
    data = tmp_path / 'data'
    small = [
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.times=1',
        'train_dataloader.dataset.dataset.indices=64',
        'val_dataloader.dataset.indices=64',
        *(
            f'{loader}.data_root={data}'
            for loader in (
                'train_dataloader.dataset.dataset',
                'val_dataloader.dataset',
                'test_dataloader.dataset',
            )
        ),
    ]

    def train(config, work_dir):
        command = [ROOT / 'tools' / 'train.py', config, '--work-dir', work_dir]
        done = subprocess.run(
            [sys.executable, *map(str, command), *small],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return work_dir / 'epoch_1.pth'

    search = MINI.with_name('local-vmamba-mini-search_mini-in1k.py')
    checkpoint = train(search, tmp_path / 'search')
    lines = (tmp_path / 'search' / 'directions.jsonl').read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert (first['iter'], last['iter']) == (0, 2)
    assert first['probabilities'] != last['probabilities']
    out = tmp_path / 'found.py'
    status, text, _ = derive(run, checkpoint, '--out', out, '--base', MINI)
    assert status == 0 and len(text.splitlines()) == 1 + 7 + 1
    picture = tmp_path / 'search.png'
    status, _, _ = draw(run, tmp_path / 'search', '--out', picture)
    assert status == 0 and np.asarray(Image.open(picture)).std() > 10
    found = torch.load(train(out, tmp_path / 'found'), weights_only=False)
    mixer = 'backbone.stages.0.blocks.0.mixer'
    assert found['state_dict'][f'{mixer}.x_proj_weight'].shape[0] == 4
    assert f'{mixer}.merge.weights' not in found['state_dict']


def test_top(run, supernet, tmp_path):
    out = tmp_path / 'found.py'
    status, text, _ = derive(run, supernet, '--top', 2, '--out', out)
    assert status == 0
    directions = Config.fromfile(out).model.backbone.directions
    assert directions == ['h v_flip'] * 2 + ['h_flip w7'] + ['h v_flip'] * 4
    assert len(text.splitlines()[1].split()) == 1 + 2 * 2


def test_top_of_the_picture(run, supernet, tmp_path):
    out = tmp_path / 'x.png'
    for top, expected in ((1, False), (2, True)):
        draw(run, supernet, '--out', out, '--top', top)
        picture = np.array(Image.open(out).convert('RGB'))
        # v and v_flip are the second choices.
        assert (picture == (213, 94, 0)).all(-1).any() == expected


@pytest.mark.parametrize(
    ('name', 'blocks', 'first'),
    [
        ('local_vim_tiny_search', 20, 'layers.0'),
        ('local_vmamba_tiny_search', 15, 'stages.0.blocks.0'),
    ],
)
def test_originals_supernets(run, tmp_path, name, blocks, first):
    path, out = tmp_path / f'{name}.ckpt', tmp_path / 'found.py'
    torch.save(dict(model=original_supernet(name)), path)
    status, text, _ = derive(run, path, '--out', out)
    assert status == 0
    assert text.splitlines()[1].startswith(first)
    directions = Config.fromfile(out).model.backbone.directions
    assert directions == [' '.join(CHOSEN)] * blocks
    status, text, _ = draw(run, path, '--out', tmp_path / 'x.png')
    assert (status, text) == (0, f'{tmp_path / "x.png"}\n')


def test_pictures(run, supernet, tmp_path):
    rng = np.random.default_rng(0)
    with (supernet.parent / 'directions.jsonl').open('w') as file:
        for iteration in (0, 200, 300):
            shares = rng.dirichlet(np.full(8, 5.0), 7).tolist()
            record = dict(
                iter=iteration, candidates=CANDIDATES, probabilities=shares
            )
            file.write(json.dumps(record) + '\n')
    out = tmp_path / 'pictures' / 'x.png'
    sizes = []
    for inputs in ([supernet.parent], [supernet], [supernet.parent, supernet]):
        status, text, _ = draw(run, *inputs, '--out', out, '--top', 3)
        assert (status, text) == (0, f'{out}\n')
        picture = np.array(Image.open(out).convert('RGB'))
        # A line or cell in the color of w7.
        assert (picture == (170, 68, 153)).all(-1).any()
        sizes.append(picture.shape[:2])
    course, choice, both = sizes
    assert course[1] > choice[1] and both[1] == course[1]
    assert both[0] == course[0] + choice[0]


@pytest.mark.parametrize(
    ('arguments', 'cause'),
    [
        (['none.pth'], 'none.pth does not exist'),
        (['plain.pth'], 'no weights of a direction search'),
        (['{supernet}', '--top', '9'], '1 to 8 routes, got top=9'),
        (['{supernet}', '--out', 'x.txt'], 'ends in .py'),
        (['{supernet}', '--base', 'x.py'], 'add --out'),
        (['{supernet}', '--out', 'x.py', '--base', 'y.py'], 'y.py does not'),
        (
            ['{supernet}', '--out', 'x.py', '--base', '{tiny}'],
            'routes of 15 blocks, got 7 entries',
        ),
    ],
)
def test_one_line_errors(
    run, supernet, tmp_path, monkeypatch, arguments, cause
):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(weight=torch.ones(2)), 'plain.pth')
    tiny = ROOT / 'configs/local_mamba/local-vmamba-tiny_8xb128_in1k.py'
    arguments = [a.format(supernet=supernet, tiny=tiny) for a in arguments]
    status, _, error = derive(run, *arguments)
    assert status == 2
    assert error.startswith('derive_directions.py: error: ')
    assert cause in error and error.count('\n') == 1
    assert not Path('x.py').exists()


@pytest.mark.parametrize(
    ('arguments', 'cause'),
    [
        (['.'], 'no directions.jsonl in .'),
        (['x.jsonl'], 'x.jsonl does not exist'),
        (['foreign.jsonl'], 'line 1 has no "iter"'),
        (['{supernet}', '--out', 'x.xyz'], 'suffix must be one of'),
        (['{supernet}', '--top', '0'], '1 to 8 routes, got top=0'),
    ],
)
def test_pictures_one_line_errors(
    run, supernet, tmp_path, monkeypatch, arguments, cause
):
    monkeypatch.chdir(tmp_path)
    Path('foreign.jsonl').write_text('{"step": 1}\n')
    status, _, error = draw(
        run, *[a.format(supernet=supernet) for a in arguments]
    )
    assert status == 2
    assert error.startswith('vis_search.py: error: ')
    assert cause in error and error.count('\n') == 1
