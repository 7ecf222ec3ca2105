import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmssm.analysis.detections import (
    GAP,
    TILE,
    TITLE_HEIGHT,
    draw_detections,
    tile_pairs,
)
from mmssm.datasets.mini.build import ensure_root
from mmssm.datasets.mini.coco import write_coco

REPO = Path(__file__).parents[2]
CONFIG = REPO / 'configs/mini/mask-rcnn_resnet18-half_mini-coco.py'
TOOL = REPO / 'tools/visualization/vis_detections.py'


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """A config with a few test scenes, and an untrained checkpoint."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    folder = tmp_path_factory.mktemp('my detector')
    root = folder / 'data'
    ensure_root(root, lambda path: write_coco(path, dict(train=2, test=5)))
    cfg = Config.fromfile(CONFIG)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{root}/'
    cfg.test_evaluator.ann_file = str(root / 'annotations/test.json')
    config = folder / 'config.py'
    cfg.dump(config)
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    checkpoint = folder / 'untrained.pth'
    meta = dict(dataset_meta=dict(classes=tuple('0123456789')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    return config, checkpoint


def test_every_pair_has_a_place():
    pairs = [
        (
            Image.new('RGB', (TILE, TILE), (value, 0, 0)),
            Image.new('RGB', (TILE, TILE // 2), (0, value, 0)),
        )
        for value in (50, 100, 150)
    ]
    picture = np.array(tile_pairs(pairs))
    assert picture.shape[0] == TITLE_HEIGHT + 2 * (TILE + GAP)
    for value in (50, 100, 150):
        assert (picture == (value, 0, 0)).all(-1).sum() == TILE**2
        assert (picture == (0, value, 0)).all(-1).sum() == TILE**2 // 2
    # Titles above the two pairs of the first row.
    assert (picture[:TITLE_HEIGHT] < 100).any()


def test_one_pair_fills_one_column():
    tile = Image.new('RGB', (TILE, TILE))
    assert tile_pairs([(tile, tile)]).width < 3 * TILE


def test_picture_shows_the_ground_truth(detector, tmp_path):
    out = tmp_path / 'pictures' / 'detections.png'
    # No detection is as sure as this, so the right side shows bare scenes.
    draw_detections(*detector, out, num=3, score_thr=1.01)
    picture = np.array(Image.open(out)).astype(int)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    left, right = (
        picture[TITLE_HEIGHT : TITLE_HEIGHT + TILE, start : start + TILE]
        for start in (GAP, 2 * GAP + TILE)
    )
    changed = (np.abs(left - right).max(-1) > 20).mean()
    assert 0.02 < changed < 0.7


def test_tool_prints_one_line_errors(detector, tmp_path):
    config, _ = detector
    done = subprocess.run(
        [sys.executable, TOOL, config, tmp_path / 'missing.pth'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith('vis_detections.py: error: checkpoint')
    assert done.stderr.count('\n') == 1


def test_bad_arguments_are_refused(detector, tmp_path):
    with pytest.raises(ValueError, match='at least 1 image'):
        draw_detections(*detector, tmp_path / 'a.png', num=0)
    with pytest.raises(ValueError, match=r'name it \.png or \.jpg'):
        draw_detections(*detector, tmp_path / 'a.gif')
    with pytest.raises(ValueError, match='config .* does not exist'):
        draw_detections(tmp_path / 'no.py', detector[1], tmp_path / 'a.png')
