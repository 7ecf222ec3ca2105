import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmssm import LocalVim, LocalVMamba
from mmssm.analysis.direction_search import (
    History,
    as_table,
    derive,
    load_probabilities,
    read_history,
    read_probabilities,
    write_fragment,
)
from mmssm.backbones.directions import CANDIDATES
from mmssm.utils import ConfigError
from mmssm.visualization.direction_search import (
    _COLORS,
    _draw,
    _panels,
    draw_histories,
)

CONFIGS = Path(__file__).parents[2] / 'configs'
MINI = CONFIGS / 'mini' / 'local-vmamba-mini_mini-in1k.py'
TINY = CONFIGS / 'local_mamba' / 'local-vim-tiny_8xb128_in1k.py'
ARCH = dict(embed_dims=8, depths=(1, 1, 11, 1), d_state=1)


def shares(blocks, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(8, 5.0), blocks)


def history(blocks, moments=5):
    course = np.stack([shares(blocks, seed) for seed in range(moments)])
    return History('a search', 200 * np.arange(moments), course)


def write_log(folder, course, candidates=CANDIDATES):
    path = folder / 'directions.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [
        dict(iter=200 * t, epoch=0, candidates=candidates, probabilities=p)
        for t, p in enumerate(course.tolist())
    ]
    path.write_text(''.join(json.dumps(r) + '\n' for r in records))
    return path


@pytest.mark.parametrize(
    ('model', 'names'),
    [
        (
            LocalVMamba(ARCH, directions='search'),
            ['stages.0.blocks.0', 'stages.1.blocks.0']
            + [f'stages.2.blocks.{i}' for i in range(11)]
            + ['stages.3.blocks.0'],
        ),
        (
            LocalVim(
                dict(embed_dims=16, depth=12, d_state=1), directions='search'
            ),
            [f'layers.{i}' for i in range(12)],
        ),
    ],
    ids=['local-vmamba', 'local-vim'],
)
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
def test_probabilities_of_blocks_in_order(model, names, prefix):
    for block, name in enumerate(names):
        weights = torch.zeros(8)
        weights[block % 8] = block
        model.get_submodule(f'{name}.mixer.merge').weights.data = weights
    # An alphabetical order, as some files have it.
    state = {f'{prefix}{k}': v for k, v in sorted(model.state_dict().items())}
    found, probabilities = read_probabilities(state)
    assert found == names
    assert probabilities.shape == (len(names), 8)
    for block, row in enumerate(probabilities):
        first = np.exp(block) / (np.exp(block) + 7)
        assert row[block % 8] == pytest.approx(first)
        assert row.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        ({}, "trained with model.backbone.directions='search'"),
        ({'layers.0.mixer.merge.weights': torch.ones(4)}, 'instead of .8,.'),
        (
            {'layers.0.mixer.merge.weights': torch.full((8,), torch.nan)},
            'layers.0 are not finite',
        ),
    ],
)
def test_no_probabilities(weights, message):
    with pytest.raises(ValueError, match=message):
        read_probabilities({'layers.0.norm.weight': torch.ones(8), **weights})


def test_derive_keeps_the_likeliest_in_the_candidates_order():
    rows = np.array(
        [
            [0.1, 0.2, 0.05, 0.3, 0.1, 0.15, 0.06, 0.04],
            [0.01, 0.02, 0.03, 0.04, 0.1, 0.2, 0.25, 0.35],
        ]
    )
    assert derive(rows) == [
        ('h', 'h_flip', 'v_flip', 'w2_flip'),  # h comes before w2
        ('w2', 'w2_flip', 'w7', 'w7_flip'),
    ]
    assert derive(rows, top=1) == [('v_flip',), ('w7_flip',)]
    assert derive(rows, top=8) == [CANDIDATES, CANDIDATES]
    for top in (0, 9):
        with pytest.raises(ValueError, match=f'1 to 8 routes, got top={top}'):
            derive(rows, top)


def test_table():
    probabilities = np.array([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0]] * 2)
    lines = as_table(
        ['layers.9', 'layers.10'], probabilities, derive(probabilities, 2)
    ).splitlines()
    assert lines[1:] == [
        'layers.9   h       50.0   h_flip  10.0',
        'layers.10  h       50.0   h_flip  10.0',
    ]
    assert lines[0].startswith('block      routes')


@pytest.mark.parametrize(('base', 'blocks'), [(MINI, 7), (TINY, 20)])
def test_fragment_builds_the_model(tmp_path, base, blocks):
    directions = derive(shares(blocks))
    path = tmp_path / 'new folder' / 'found.py'
    write_fragment(path, directions, 'work_dirs/x\n/epoch_9.pth', base)
    text = path.read_text()
    assert '# work_dirs/x /epoch_9.pth\n' in text
    assert str(tmp_path) not in text  # relative: it can move with the base
    cfg, plain = Config.fromfile(path), Config.fromfile(base)
    with torch.device('meta'):
        model = MODELS.build(cfg.model.backbone)
    mixers = [m for m in model.modules() if hasattr(m, 'routes')]
    assert [m.routes for m in mixers] == directions
    del cfg.model.backbone['directions']
    assert cfg.to_dict() == plain.to_dict()


def test_fragment_without_base_is_an_overlay(tmp_path):
    directions = derive(shares(7))
    path = tmp_path / 'found.py'
    write_fragment(path, directions, 'x.pth')
    rows = [' '.join(names) for names in directions]
    overlay = Config.fromfile(path)
    assert overlay.to_dict() == dict(
        model=dict(backbone=dict(directions=rows))
    )
    # What its comment says.
    text = path.read_text()
    assert "put _base_ = '<config>.py' below" in text
    path.write_text(
        text.replace('model =', f'_base_ = {str(MINI)!r}\nmodel =')
    )
    backbone = Config.fromfile(path).model.backbone
    assert backbone.directions == rows
    assert backbone.type == 'LocalVMamba'


@pytest.mark.parametrize(
    ('base', 'message'),
    [
        (CONFIGS / 'mini' / 'none.py', 'none.py does not exist'),
        (CONFIGS / 'mini' / '_base_' / 'schedule.py', 'no model.backbone'),
        (
            CONFIGS / 'mini' / 'local-vmamba-mini-search_mini-in1k.py',
            'is a search itself',
        ),
        (MINI, 'routes of 7 blocks, got 3 entries'),
        (
            CONFIGS / 'mini' / 'vmamba-mini_mini-in1k.py',
            "does not take these directions: .*argument 'directions'",
        ),
    ],
    ids=['missing', 'no model', 'search', 'depth', 'other family'],
)
def test_base_that_does_not_fit(tmp_path, base, message):
    path = tmp_path / 'found.py'
    with pytest.raises(ConfigError, match=message):
        write_fragment(path, derive(shares(3)), 'x.pth', base)
    assert not path.exists()


def test_base_is_not_overwritten(tmp_path):
    base = tmp_path / 'base.py'
    write_fragment(base, derive(shares(7)), 'x.pth', MINI)
    text = base.read_text()
    with pytest.raises(ConfigError, match='is the base itself'):
        write_fragment(base, derive(shares(7)), 'y.pth', base)
    assert base.read_text() == text


@pytest.mark.parametrize('name', ['found.pth', 'found', '.'])
def test_no_name_for_a_config(tmp_path, name):
    with pytest.raises(ConfigError, match='file that ends in .py'):
        write_fragment(tmp_path / name, derive(shares(7)), 'x.pth')


def test_read_history_takes_log_and_work_dir(tmp_path):
    course = history(3).probabilities
    log = write_log(tmp_path / 'my run', course)
    with log.open('a') as file:
        file.write('{"iter": 1000, "prob')  # cut off by a kill
    for path in (log, log.parent):
        found = read_history(path)
        assert found.name == 'my run'
        assert found.iterations.tolist() == [0, 200, 400, 600, 800]
        np.testing.assert_array_equal(found.probabilities, course)


def test_read_history_takes_a_checkpoint(tmp_path):
    model = LocalVMamba(ARCH, directions='search')
    path = tmp_path / 'my run' / 'epoch_1.pth'
    path.parent.mkdir()
    torch.save(dict(meta=dict(iter=9), state_dict=model.state_dict()), path)
    found = read_history(path)
    assert found.name == 'my run/epoch_1.pth'
    assert found.probabilities.shape == (1, 14, 8)
    names, probabilities = load_probabilities(path)
    assert names[3] == 'stages.2.blocks.1'
    np.testing.assert_array_equal(found.probabilities[0], probabilities)


def test_checkpoint_that_is_no_supernet(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(2))), path)
    with pytest.raises(
        ValueError, match=r'epoch_1\.pth: there are no weights'
    ):
        read_history(path)


def bad_logs():
    course = history(3).probabilities
    candidates = list(CANDIDATES)
    diverged = course.copy()
    diverged[3] = np.nan
    return {
        'other candidates': (course, candidates[::-1]),
        'too few': (course[:, :, :7], candidates),
        'diverged': (diverged, candidates),
    }


@pytest.mark.parametrize('kind', bad_logs())
def test_log_that_cannot_be_drawn(tmp_path, kind):
    log = write_log(tmp_path, *bad_logs()[kind])
    iteration = 600 if kind == 'diverged' else 0
    with pytest.raises(ValueError, match=f'drawn: at iteration {iteration} '):
        read_history(log)


def test_log_with_fewer_blocks_later(tmp_path):
    log = write_log(tmp_path, history(3).probabilities[:1])
    with log.open('a') as file:
        file.write(write_log(tmp_path / 'x', shares(2)[None]).read_text())
    with pytest.raises(ValueError, match='in 3 blocks that sum to 1'):
        read_history(log)


def test_no_log(tmp_path):
    with pytest.raises(ValueError, match='no directions.jsonl in '):
        read_history(tmp_path)
    with pytest.raises(ValueError, match=r'x\.jsonl does not exist'):
        read_history(tmp_path / 'x.jsonl')
    (tmp_path / 'directions.jsonl').touch()
    with pytest.raises(ValueError, match='nothing was written yet'):
        read_history(tmp_path)


@pytest.mark.parametrize(
    ('blocks', 'panels'),
    [
        (1, (1, 1)),
        (2, (2, 1)),
        (4, (2, 2)),
        (7, (2, 4)),
        (15, (3, 5)),
        (20, (4, 5)),
        (33, (7, 5)),
    ],
)
def test_panels(blocks, panels):
    assert _panels(blocks) == panels


def texts(axis):
    return [text.get_text() for text in axis.texts]


@pytest.mark.parametrize('blocks', [1, 4, 7, 33])
def test_course_and_choice(blocks):
    figure = Figure()
    found = history(blocks)
    kept = derive(found.probabilities[-1])
    _draw(figure.subfigures(), found, kept)
    *panels, grid = figure.get_axes()
    used = [axis for axis in panels if axis.lines]
    assert [axis.get_title() for axis in used] == [
        f'block {i}' for i in range(blocks)
    ]
    for block, axis in enumerate(used):
        for number, name in enumerate(CANDIDATES):
            line = axis.lines[number]
            assert line.get_label() == name
            np.testing.assert_array_equal(
                line.get_ydata(), found.probabilities[:, block, number]
            )
            assert (line.get_linewidth() > 1) == (name in kept[block])
    last = found.probabilities[-1]
    assert texts(grid) == [f'{100 * share:.1f}' for share in last.flat]


def test_grid_colors_what_is_kept():
    figure = Figure()
    last = history(5, moments=1)
    kept = derive(last.probabilities[-1], top=3)
    _draw(figure.subfigures(), last, kept)
    (grid,) = figure.get_axes()  # nothing but the choice
    pixels = grid.images[0].get_array()
    for block, names in enumerate(kept):
        for number, name in enumerate(CANDIDATES):
            wanted = (
                to_rgb(_COLORS[name.split('_')[0]]) if name in names else 1
            )
            assert np.allclose(pixels[block, number], wanted)
    assert grid.get_title().startswith('3 likeliest')


@pytest.mark.parametrize('suffix', ['png', 'pdf', 'svg'])
def test_picture_of_several_searches(tmp_path, suffix):
    one, two = tmp_path / f'one.{suffix}', tmp_path / f'two.{suffix}'
    draw_histories([history(5)], one)
    draw_histories([history(5), history(3, moments=1)], two)
    assert not list(tmp_path.glob('.*tmp'))
    if suffix == 'png':
        assert Image.open(two).height > Image.open(one).height
        assert Image.open(two).width == Image.open(one).width
    else:
        assert one.stat().st_size > 1000


def test_unknown_picture_format(tmp_path):
    with pytest.raises(ValueError, match='must be one of .*png'):
        draw_histories([history(2)], tmp_path / 'x.xyz')
    assert not list(tmp_path.iterdir())
