"""Drawings of a change detector whose answers and errors are known."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmssm.apis import evaluate
from mmssm.apis.predictions import draw_predictions
from mmssm.visualization.sheets import (
    GAP,
    LINE_HEIGHT,
    TILE,
    TITLE_HEIGHT,
)
from mmssm.visualization.task_sheets import (
    CHANGED,
    FALSE_ALARM,
    IGNORED,
    MISSED,
    UNCHANGED,
    change_sheet,
)

SIZE = 40, 20  # width and height
BEFORE, AFTER = (10, 20, 90), (200, 30, 40)

if 'TestPairPixels' not in MODELS:

    @MODELS.register_module()
    class TestPairPixels(BaseModule):
        """A backbone whose features are the image."""

        __test__ = False

        def forward(self, x):
            return (x,)


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """One that finds what has become red: the left half.

    What is labeled as changed is the upper half.
    """
    folder = tmp_path_factory.mktemp('my detector')
    width, height = SIZE
    before = np.full((height, width, 3), BEFORE, dtype=np.uint8)
    after = before.copy()
    after[:, : width // 2] = AFTER
    label = np.zeros((height, width), dtype=np.uint8)
    label[: height // 2] = 255
    for name, pixels in dict(A=before, B=after, label=label).items():
        (folder / name).mkdir()
        for number in range(3):
            Image.fromarray(pixels).save(folder / name / f'{number}.png')
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='mmssm.models.ChangeDetector',
                data_preprocessor=dict(type='SegDataPreProcessor'),
                backbone=dict(type='TestPairPixels'),
                # Any head that takes the maps of a pair.
                decode_head=dict(
                    type='FCNHead',
                    in_channels=6,
                    channels=6,
                    num_classes=2,
                    num_convs=0,
                    concat_input=False,
                ),
                test_cfg=dict(mode='whole'),
            ),
            test_dataloader=dict(
                dataset=dict(
                    type='mmssm.datasets.LEVIRCDPlusDataset',
                    data_root=str(folder),
                    data_prefix=dict(
                        img_path='A', img_path_after='B', seg_map_path='label'
                    ),
                    pipeline=[
                        dict(type='mmssm.datasets.LoadImagePair'),
                        dict(type='mmssm.datasets.LoadChangeLabel'),
                        dict(type='PackSegInputs'),
                    ],
                )
            ),
        )
    )
    cfg.dump(folder / 'config.py')
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    classifier = model.decode_head.conv_seg
    classifier.weight.data.zero_()
    classifier.weight.data[1, :, 0, 0] = torch.tensor([-1.0, 0, 0, 1, 0, 0])
    classifier.bias.data[:] = torch.tensor([100.0, 0.0])
    torch.save(dict(state_dict=model.state_dict()), folder / 'model.pth')
    return folder / 'config.py', folder / 'model.pth'


def quarters(tile):
    """Upper left, upper right, lower left and lower right of a tile.

    A margin of half of the image's pixels is left out where they meet.
    """
    half = TILE * SIZE[1] // SIZE[0] // 2
    top = TILE // 2 - half
    step = 2 * TILE // SIZE[0]
    return [
        tile[rows, columns]
        for rows in (
            slice(top, TILE // 2 - step),
            slice(TILE // 2 + step, TILE // 2 + half),
        )
        for columns in (
            slice(0, TILE // 2 - step),
            slice(TILE // 2 + step, TILE),
        )
    ]


def tiles(picture, row=0):
    top = TITLE_HEIGHT + row * (TILE + GAP)
    return [
        picture[top : top + TILE, left : left + TILE]
        for left in (GAP + place * (TILE + GAP) for place in range(4))
    ]


def check(tile, *colors):
    for part, color in zip(quarters(tile), colors):
        assert (part == color).all(), color


def test_pairs_stand_beside_truth_and_prediction(detector, tmp_path):
    draw_predictions(*detector, tmp_path / 'a.png', num=2, device='cpu')
    picture = np.array(Image.open(tmp_path / 'a.png'))
    assert picture.shape[1] == 4 * TILE + 5 * GAP
    for row in range(2):
        before, after, truth, found = tiles(picture, row)
        check(before, *[BEFORE] * 4)
        check(after, AFTER, BEFORE, AFTER, BEFORE)
        check(truth, CHANGED, CHANGED, UNCHANGED, UNCHANGED)
        check(found, CHANGED, MISSED, FALSE_ALARM, UNCHANGED)
    legend = picture[TITLE_HEIGHT + 2 * (TILE + GAP) :]
    assert LINE_HEIGHT <= len(legend) <= 2 * LINE_HEIGHT
    for color in (FALSE_ALARM, MISSED, CHANGED, UNCHANGED):
        assert (legend == color).all(-1).any()
    # Letters have gray pixels, too, but no patch of them.
    gray = (legend == IGNORED).all(-1)
    patches = np.lib.stride_tricks.sliding_window_view(gray, (6, 6))
    assert not patches.all((2, 3)).any()


def test_tiles_are_drawn_as_tiles(detector, tmp_path):
    options = {'test_dataloader.dataset.tile_size': SIZE[1]}
    draw_predictions(
        *detector, tmp_path / 'a.png', num=6, options=options, device='cpu'
    )
    picture = np.array(Image.open(tmp_path / 'a.png'))
    left, right = tiles(picture, 0), tiles(picture, 1)
    assert (left[1] == AFTER).all() and (right[1] == BEFORE).all()
    assert (left[2][: TILE // 2] == CHANGED).all()
    assert (right[3][: TILE // 2] == MISSED).all()


@pytest.mark.parametrize('tta', [False, True])
def test_pictures_of_a_test(detector, tmp_path, tta):
    loader = dict(type='mmssm.datasets.LoadImagePair')
    cfg = Config.fromfile(detector[0])
    load_label = dict(type='mmssm.datasets.LoadChangeLabel')
    pack = dict(type='PackSegInputs')
    flips = [dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)]
    cfg.merge_from_dict(
        dict(
            test_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(tile_size=SIZE[1]),
            ),
            test_cfg=dict(type='TestLoop'),
            test_evaluator=dict(type='mmssm.engine.ChangeMetric'),
            default_hooks=dict(
                visualization=dict(type='SegVisualizationHook')
            ),
            tta_model=dict(type='SegTTAModel'),
            tta_pipeline=[
                loader,
                dict(
                    type='TestTimeAug',
                    transforms=[flips, [load_label], [pack]],
                ),
            ],
        )
    )
    cfg.dump(tmp_path / 'config.py')
    evaluate(
        str(tmp_path / 'config.py'),
        str(detector[1]),
        work_dir=str(tmp_path / 'work'),
        show_dir=str(tmp_path / 'shown'),
        tta=tta,
    )
    # Three pairs of two tiles.
    names = {path.name for path in (tmp_path / 'shown').iterdir()}
    assert names == {f'{i}{n}.png' for i in range(3) for n in ('', '-2')}
    for name, after, missed in (
        ('1.png', AFTER, CHANGED),
        ('1-2.png', BEFORE, MISSED),
    ):
        picture = np.array(Image.open(tmp_path / 'shown' / name))
        first, second, truth, found = tiles(picture)
        assert (first == BEFORE).all() and (second == after).all()
        assert (truth[: TILE // 2 - 20] == CHANGED).all()
        assert (found[: TILE // 2 - 20] == missed).all()


def test_ignored_pixels_are_no_errors():
    truth = torch.tensor([[0, 1, 255, 255]]).repeat(4, 1)
    found = torch.tensor([[0, 1, 0, 1]]).repeat(4, 1)
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=truth[None]),
        pred_sem_seg=PixelData(data=found[None]),
    )
    sheet = change_sheet([(np.zeros((4, 4, 6), dtype=np.uint8), sample)])
    _, _, *maps = tiles(np.array(sheet))
    for picture in maps:
        assert (picture[:, : TILE // 4] == UNCHANGED).all()
        assert (picture[:, TILE // 4 : TILE // 2] == CHANGED).all()
        assert (picture[:, TILE // 2 :] == IGNORED).all()
