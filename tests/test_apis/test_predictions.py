import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModule
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image

from mmssm.apis.predictions import draw_predictions
from mmssm.datasets import MiniCocoDataset
from mmssm.datasets.mini.build import ensure_root
from mmssm.datasets.mini.coco import write_coco
from mmssm.utils import CheckpointError, ConfigError
from mmssm.visualization.palette import generate_palette
from mmssm.visualization.pictures import LABEL_OPACITY
from mmssm.visualization.sheets import (
    GAP,
    LINE_HEIGHT,
    THUMBNAIL,
    TILE,
    TITLE_HEIGHT,
    caption_font,
)
from mmssm.visualization.task_sheets import (
    RIGHT,
    WRONG,
    class_sheet,
)

REPO = Path(__file__).parents[2]
DETECTOR = REPO / 'configs/mini/mask-rcnn_resnet18-half_mini-coco.py'
TOOL = REPO / 'tools/visualization/vis_predictions.py'
YELLOW, ITS_GREY = (255, 255, 0), 226
IMAGE_SIZE = 40, 20
SCALE = TILE // max(IMAGE_SIZE)

if 'TestPixels' not in MODELS:

    @MODELS.register_module()
    class TestPixels(BaseModule):
        """A backbone whose features are the image."""

        __test__ = False

        def __init__(self):
            super().__init__()
            self.norm = torch.nn.SyncBatchNorm(3, eps=1e-9)

        def forward(self, x):
            return (self.norm(x),)

    @DATASETS.register_module()
    class TestPixelsInMemory(BaseDataset):
        """One image, kept as those of CIFAR are."""

        __test__ = False

        def load_data_list(self):
            image = np.full((*IMAGE_SIZE, 3), (255, 250, 245), dtype=np.uint8)
            return [dict(img=image, gt_label=0)]


def save_checkpoint(path, cfg, **weights):
    """Save a new model of a config, with some weights set."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    state = model.state_dict()
    for key, value in weights.items():
        state[key.replace('__', '.')].copy_(torch.tensor(value))
    torch.save(dict(state_dict=state), path)
    return path


def save_config(path, values):
    cfg = Config(values)
    cfg.dump(path)
    return cfg


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """A config with a few test scenes, and an untrained checkpoint."""
    folder = tmp_path_factory.mktemp('my detector')
    root = folder / 'data'
    ensure_root(root, lambda path: write_coco(path, dict(train=2, test=5)))
    cfg = Config.fromfile(DETECTOR)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{root}/'
    cfg.test_evaluator.ann_file = str(root / 'annotations/test.json')
    config = folder / 'config.py'
    cfg.dump(config)
    return config, save_checkpoint(folder / 'untrained.pth', cfg)


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    """One that finds yellow pixels in images whose right half is yellow.

    The upper right quarter is labeled as yellow and the left half as black;
    the lower right quarter is to be ignored.
    """
    folder = tmp_path_factory.mktemp('my segmentor')
    width, height = IMAGE_SIZE
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:, width // 2 :] = YELLOW
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[: height // 2, width // 2 :] = 1
    labels[height // 2 :, width // 2 :] = 255
    for name, pixels in (('images', image), ('labels', labels)):
        (folder / name).mkdir()
        for number in range(3):
            Image.fromarray(pixels).save(folder / name / f'{number}.png')
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(folder),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        img_suffix='.png',
        metainfo=dict(
            # No image shows a third class.
            classes=('black', 'yellow', 'other'),
            palette=[(200, 0, 0), (0, 0, 200), (0, 99, 0)],
        ),
        pipeline=[
            dict(type='LoadImageFromFile'),
            # A map in the image's old size: predictions are in that, too.
            dict(type='Resize', scale=(80, 40)),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )
    values = dict(
        default_scope='mmseg',
        model=dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor'),
            backbone=dict(type='TestPixels'),
            decode_head=dict(
                type='FCNHead',
                in_channels=3,
                channels=3,
                num_classes=3,
                num_convs=0,
                concat_input=False,
            ),
            test_cfg=dict(mode='whole'),
        ),
        test_dataloader=dict(dataset=dataset),
    )
    cfg = save_config(folder / 'config.py', values)
    checkpoint = save_checkpoint(
        folder / 'model.pth',
        cfg,
        decode_head__conv_seg__weight=[
            [[[0.0]]] * 3,
            [[[1.0]]] * 3,
            [[[0.0]]] * 3,
        ],
        decode_head__conv_seg__bias=[300.0, 0.0, -1.0],
    )
    return folder / 'config.py', checkpoint


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """One that takes bright images for ``b`` and others for ``a``.

    Of two images in each class, one of ``b`` is dark. The classifier is as
    sure as it should be only if images are normalized as the config says.
    """
    folder = tmp_path_factory.mktemp('my classifier')
    for name, color in (('a/0', 0), ('a/1', 0), ('b/0', 0), ('b/1', 255)):
        path = folder / 'data' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', IMAGE_SIZE, (color,) * 3).save(path)
    values = dict(
        default_scope='mmpretrain',
        data_preprocessor=dict(mean=[128] * 3, std=[127] * 3),
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='TestPixels'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=3),
        ),
        test_dataloader=dict(
            dataset=dict(
                type='CustomDataset',
                data_root=str(folder / 'data'),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='PackInputs'),
                ],
            )
        ),
    )
    cfg = save_config(folder / 'config.py', values)
    checkpoint = save_checkpoint(
        folder / 'model.pth',
        cfg,
        head__fc__weight=[[-1.0] * 3, [1.0] * 3],
        head__fc__bias=[0.0, 0.0],
    )
    return folder / 'config.py', checkpoint


def draw(model, out, **options):
    draw_predictions(*model, out, device='cpu', **options)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return np.array(Image.open(out)).astype(int)


def test_detections_stand_beside_the_truth(detector, tmp_path):
    out = tmp_path / 'pictures' / 'predictions.png'
    # No detection is as sure as this, so the right side shows bare scenes.
    picture = draw(detector, out, num=3, score_thr=1.01)
    assert picture.shape[0] == TITLE_HEIGHT + 2 * (TILE + GAP)
    left, right = (
        picture[TITLE_HEIGHT : TITLE_HEIGHT + TILE, start : start + TILE]
        for start in (GAP, 2 * GAP + TILE)
    )
    changed = (np.abs(left - right).max(-1) > 20).mean()
    assert 0.02 < changed < 0.7
    # All in colors of the classes, the same ones each time.
    palette = MiniCocoDataset.METAINFO['palette']
    drawn = [(left == color).all(-1).sum() > 100 for color in palette]
    assert any(drawn)
    assert not any((right == color).all(-1).any() for color in palette)
    assert (picture == draw(detector, out, num=3, score_thr=1.01)).all()


def test_label_maps_stand_beside_the_truth(segmentor, tmp_path):
    picture = draw(segmentor, tmp_path / 'out' / 'a.png', num=2)
    width, height = (SCALE * length for length in IMAGE_SIZE)
    # Two pairs in one row, over one line of legend.
    top = TITLE_HEIGHT + (TILE - height) // 2
    bottom = TITLE_HEIGHT + TILE + GAP
    assert picture.shape[1] == 4 * TILE + 7 * GAP
    assert LINE_HEIGHT <= picture.shape[0] - bottom <= 2 * LINE_HEIGHT
    sides = [
        picture[top : top + height, start : start + width]
        for start in (GAP, 2 * GAP + TILE)
    ]
    black = np.round(LABEL_OPACITY * np.array((200, 0, 0)))
    yellow = np.round(
        (1 - LABEL_OPACITY) * ITS_GREY + LABEL_OPACITY * np.array((0, 0, 200))
    )
    # Interpolation changes pixels beside the border of the two colors only.
    truth, prediction = (
        {
            'left': side[:, : width // 2 - 3 * SCALE],
            'upper': side[: height // 2, width // 2 + 3 * SCALE :],
            'lower': side[height // 2 :, width // 2 + 3 * SCALE :],
        }
        for side in sides
    )
    assert (truth['left'] == black).all()
    assert (truth['upper'] == yellow).all()
    assert (truth['lower'] == YELLOW).all()
    assert (prediction['left'] == black).all()
    assert (prediction['upper'] == yellow).all()
    assert (prediction['lower'] == yellow).all()
    legend = picture[bottom:]
    for color, occurs in (
        ((200, 0, 0), True),
        ((0, 0, 200), True),
        ((0, 99, 0), False),
    ):
        assert (legend == color).all(-1).any() == occurs


def test_palette_may_be_missing(segmentor, tmp_path):
    config, checkpoint = segmentor
    cfg = Config.fromfile(config)
    del cfg.test_dataloader.dataset.metainfo.palette
    cfg.dump(tmp_path / 'config.py')
    model = tmp_path / 'config.py', checkpoint
    picture = draw(model, tmp_path / 'out' / 'a.png', num=1)
    legend = picture[TITLE_HEIGHT + TILE + GAP :]
    occurs = [(legend == c).all(-1).any() for c in generate_palette(3)]
    assert occurs == [True, True, False]


def test_class_names_must_not_be_missing(segmentor, tmp_path):
    options = {'test_dataloader.dataset.metainfo.classes': None}
    with pytest.raises(ConfigError, match=r'dataset\.metainfo\.classes='):
        draw_predictions(*segmentor, tmp_path / 'a.png', options=options)
    assert not list(tmp_path.iterdir())


def test_answers_stand_below_the_images(classifier, tmp_path):
    picture = draw(classifier, tmp_path / 'out' / 'a.png')
    step = THUMBNAIL + 2 * GAP
    row = THUMBNAIL + LINE_HEIGHT + GAP
    assert picture.shape[:2] == (TITLE_HEIGHT + row, 4 * step)
    captions = picture[TITLE_HEIGHT + THUMBNAIL :].reshape(-1, 4, step, 3)
    for number, color in enumerate((RIGHT, RIGHT, WRONG, RIGHT)):
        caption = captions[:, number]
        other = RIGHT if color == WRONG else WRONG
        assert (caption == color).all(-1).any()
        assert not (caption == other).all(-1).any()
    # Of the wrong one, the true class is written as well.
    widths = (captions < 128).any(-1).any(0).sum(-1)
    assert widths[2] > 1.5 * widths[0]


@pytest.fixture
def thumbnail_sheets(monkeypatch):
    """What is put on sheets of thumbnails: (thumbnails, title) of each."""
    sheets = []

    def keep(*sheet):
        sheets.append(sheet)
        return Image.new('RGB', (1, 1))

    monkeypatch.setattr(
        'mmssm.visualization.task_sheets.tile_thumbnails', keep
    )
    return sheets


def test_answers_are_what_the_model_says(
    classifier, tmp_path, thumbnail_sheets
):
    draw_predictions(*classifier, tmp_path / 'a.png')
    ((thumbnails, title),) = thumbnail_sheets
    # Scores without the config's normalization would be 50 %.
    assert [item.caption for item in thumbnails] == [
        ('a  100 %',),
        ('a  100 %',),
        ('a  100 %', 'true b'),
        ('b  100 %',),
    ]
    assert title == '3 of 4 test images right'


def test_images_are_spread_over_the_test_set(
    classifier, tmp_path, thumbnail_sheets
):
    draw_predictions(*classifier, tmp_path / 'a.png', num=2)
    ((thumbnails, _),) = thumbnail_sheets
    assert [item.caption[0][0] for item in thumbnails] == ['a', 'b']


def test_images_may_be_kept_in_memory(classifier, tmp_path, thumbnail_sheets):
    config, checkpoint = classifier
    cfg = Config.fromfile(config)
    cfg.test_dataloader.dataset = dict(
        type='TestPixelsInMemory', pipeline=[dict(type='PackInputs')]
    )
    cfg.dump(tmp_path / 'config.py')
    draw_predictions(tmp_path / 'config.py', checkpoint, tmp_path / 'a.png')
    (((thumbnail,), _),) = thumbnail_sheets
    assert thumbnail.picture.getpixel((9, 9)) == (255, 250, 245)
    # Without names of classes, there are numbers.
    assert thumbnail.caption == ('1  100 %', 'true 0')


def test_long_lists_of_names_are_shortened(thumbnail_sheets):
    from mmpretrain.structures import DataSample

    sample = DataSample()
    sample.set_pred_score(torch.tensor([0.7, 0.3])).set_gt_label([1])
    classes = ['tench, Tinca tinca', 'great white shark of the seas, shark']
    image = np.zeros((*IMAGE_SIZE, 3), dtype=np.uint8)
    class_sheet([(image, sample)], classes)
    (((thumbnail,), _),) = thumbnail_sheets
    answer, truth = thumbnail.caption
    assert answer == 'tench  70 %'
    assert truth.startswith('true great whi') and truth.endswith('...')
    assert caption_font().getlength(truth) < THUMBNAIL


@pytest.mark.parametrize('model', ['detector', 'segmentor', 'classifier'])
def test_global_scope_is_left_alone(model, tmp_path, request, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    DefaultScope.get_instance('outer', scope_name='mmengine')
    draw_predictions(
        *request.getfixturevalue(model), tmp_path / 'a.jpg', num=1
    )
    assert DefaultScope.get_current_instance().instance_name == 'outer'
    assert Image.open(tmp_path / 'a.jpg').format == 'JPEG'


@pytest.mark.parametrize('model', ['detector', 'segmentor', 'classifier'])
def test_checkpoint_must_fit_exactly(model, tmp_path, request):
    config, checkpoint = request.getfixturevalue(model)
    content = torch.load(checkpoint)
    key = next(key for key in content['state_dict'] if 'weight' in key)
    del content['state_dict'][key]
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=f'1 missing: {key}'):
        draw_predictions(config, tmp_path / 'other.pth', tmp_path / 'a.png')


def test_file_without_weights_is_refused(classifier, tmp_path):
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(CheckpointError, match='list'):
        draw_predictions(
            classifier[0], tmp_path / 'list.pth', tmp_path / 'a.png'
        )


@pytest.mark.parametrize('model', ['detector', 'segmentor'])
def test_images_without_truth_are_refused(model, tmp_path, request):
    config, checkpoint = request.getfixturevalue(model)
    cfg = Config.fromfile(config)
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = [
        part for part in dataset.pipeline if part.type != 'LoadAnnotations'
    ]
    cfg.dump(tmp_path / 'config.py')
    with pytest.raises(ConfigError, match='gives no gt_'):
        draw_predictions(
            tmp_path / 'config.py', checkpoint, tmp_path / 'a.png'
        )


def test_tool_prints_one_line_errors(detector, tmp_path):
    config, _ = detector
    done = subprocess.run(
        [sys.executable, TOOL, config, tmp_path / 'missing.pth'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith('vis_predictions.py: error: checkpoint')
    assert done.stderr.count('\n') == 1


def test_tool_takes_config_options(segmentor, tmp_path):
    """The message about missing data tells to use them."""
    config, checkpoint = segmentor
    options = '--cfg-options', 'test_dataloader.dataset.data_root=nowhere'
    done = subprocess.run(
        [sys.executable, TOOL, config, checkpoint, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert 'nowhere' in done.stderr and done.stderr.count('\n') == 1


def test_bad_arguments_are_refused(detector, tmp_path):
    with pytest.raises(ValueError, match='at least 1 image'):
        draw_predictions(*detector, tmp_path / 'a.png', num=0)
    with pytest.raises(ValueError, match=r'name it \.png or \.jpg'):
        draw_predictions(*detector, tmp_path / 'a.gif')
    with pytest.raises(ConfigError, match='a.png is a folder'):
        (tmp_path / 'a.png').mkdir()
        draw_predictions(*detector, tmp_path / 'a.png')
    (tmp_path / 'a.png').rmdir()
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match='cannot write to .*/file/sub .*out'):
        draw_predictions(*detector, tmp_path / 'file' / 'sub' / 'a.png')
    with pytest.raises(ConfigError, match='--device mps'):
        draw_predictions(*detector, tmp_path / 'a.png', device='mps')
    with pytest.raises(ConfigError, match='config .* does not exist'):
        draw_predictions(tmp_path / 'no.py', detector[1], tmp_path / 'a.png')
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmpose'\n")
    with pytest.raises(ConfigError, match='mmpose.* mmdet, mmseg, mmpretrain'):
        draw_predictions(config, detector[1], tmp_path / 'a.png')
