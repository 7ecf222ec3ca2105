"""Inference for pairs of images, with a tiny change detector."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from mmssm.apis import find_model, geotiff, infer
from mmssm.apis.images import UnreadableImage, read_pair
from mmssm.apis.tasks import find_task
from mmssm.models import ChangeDetector
from mmssm.utils import ConfigError, UserError
from mmssm.visualization.pictures import CHANGED

CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmssm'], allow_failed_imports=False)
model = dict(
    type='mmssm.models.ChangeDetector',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[0] * 6, std=[255] * 6),
    backbone=dict(
        type='VMamba', arch=dict(embed_dims=16, depths=(1, 1, 1, 1)),
        out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        type='mmssm.models.ChangeMambaHead', in_channels=[16, 32, 64, 128],
        channels=8, norm_cfg=dict(type='SyncBN')),
    test_cfg=dict(mode='whole'))
test_dataloader = dict(
    dataset=dict(
        type='mmssm.datasets.ChangeDataset',
        data_root='not there',
        pipeline=[
            dict(type='mmssm.datasets.LoadImagePair'),
            dict(type='mmssm.datasets.LoadChangeLabel'),
            dict(type='PackSegInputs')]))
"""
SINGLE = CONFIG.replace('mmssm.datasets.LoadImagePair', 'LoadImageFromFile')
ONE_TWICE = [('A', 'A/'), ('A/two.png', 'A/two.png')]
RED, BLUE = (200, 0, 0), (0, 0, 250)


def save_detector(folder, weight, bias):
    """A config and its checkpoint; its last layer has this weight and bias.

    The weight is that of the label 'changed', and less that of the other.
    """
    config = folder / 'config.py'
    config.write_text(CONFIG)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(Config.fromfile(config).model)
    classifier = model.decode_head.conv_seg
    classifier.weight.data[0] = -weight
    classifier.weight.data[1] = weight
    classifier.bias.data[:] = torch.tensor([-bias, bias])
    torch.save(dict(state_dict=model.state_dict()), folder / 'model.pth')
    return str(config), str(folder / 'model.pth')


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """It says of all pixels that they have changed."""
    folder = tmp_path_factory.mktemp('detector')
    return save_detector(folder, torch.zeros(8, 1, 1), 9.0)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders with a pair of one name."""
    monkeypatch.chdir(tmp_path)
    save('A/one.png', RED)
    save('B/one.png', BLUE)


def save(path, color, size=(60, 40), **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, color).save(path, **options)


@pytest.mark.parametrize('given', ['', '/one.png'], ids=['folders', 'files'])
def test_pair(detector, folders, given):
    summary = infer(f'A{given}', *detector, 'out', after=f'B{given}')
    assert str(summary) == '1 pair done, 0 skipped'
    record = json.loads(Path('out/preds/one.json').read_text())
    assert record == dict(
        image='A/one.png',
        image_after='B/one.png',
        width=60,
        height=40,
        classes=[dict(label=1, name='changed', share=1.0)],
        index_map='one.png',
    )
    with Image.open('out/preds/one.png') as index:
        assert (np.array(index) == np.ones((40, 60))).all()


def test_picture_shows_both_images_and_what_changed(detector, folders):
    infer('A', *detector, 'out', after='B')
    with Image.open('out/vis/one.png') as file:
        picture = np.array(file.convert('RGB'))
    width = picture.shape[1]
    assert width > 3 * 640
    row = picture[300]  # between the titles and the list
    assert (row[: width // 4] == RED).all()
    assert (row[width // 2 - 300 : width // 2 + 300] == BLUE).all()
    # The later image, tinted.
    last = row[-600:-40]
    assert (last == last[0]).all() and last[0, 0] > 100
    assert not (last == BLUE).all()
    # In the list its color is shown.
    assert (picture[-40:] == CHANGED).all(-1).sum() > 100


def test_both_images_reach_the_model_in_order(detector, folders, monkeypatch):
    seen, encode = [], ChangeDetector.extract_feat

    def keep(self, inputs):
        seen.append((255 * inputs.mean((0, 2, 3))).tolist())
        return encode(self, inputs)

    monkeypatch.setattr(ChangeDetector, 'extract_feat', keep)
    infer('A', *detector, after='B')
    assert seen == [pytest.approx([*RED, *BLUE])]


def test_images_without_a_partner_are_named(detector, folders, capsys):
    save('A/sub/two.png', RED)
    save('B/sub/two.png', RED)
    save('A/alone.png', RED)
    save('B/late.png', RED)
    save('B/sub/one.png', RED)
    save('A/wide.png', RED)
    save('B/wide.png', RED, (61, 40))
    save('A/cut.png', RED)
    Path('B/cut.png').touch()
    save('A/late.tif', RED)
    save('B/Alone.PNG', RED)
    summary = infer('A', *detector, after='B')
    assert str(summary) == '2 pairs done, 7 skipped'
    assert summary.skipped == {
        'A/alone.png': 'no image of this name in B, but Alone.PNG; give both '
        'the same name',
        'B/Alone.PNG': 'no image of this name in A, but alone.png; give both '
        'the same name',
        'A/late.tif': 'no image of this name in B, but late.png; give both '
        'the same name',
        'B/late.png': 'no image of this name in A, but late.tif; give both '
        'the same name',
        'B/sub/one.png': 'no image of this name in A',
        'A/cut.png': 'B/cut.png: the file is empty (0 bytes)',
        'A/wide.png': 'it has 60 x 40 pixels, but B/wide.png has 61 x 40; '
        'the images of a pair must have one size',
    }
    lines = capsys.readouterr().err.splitlines()
    assert 'skipped B/sub/one.png: no image of this name in A' in lines
    preds = summary.out_dir / 'preds'
    assert {str(p.relative_to(preds)) for p in preds.rglob('*.json')} == {
        'one.json',
        'sub/two.json',
    }


def test_own_results_are_no_images(detector, folders):
    for _ in range(2):
        summary = infer('A', *detector, 'B', after='B')
        assert str(summary) == '1 pair done, 0 skipped'
    with pytest.raises(ConfigError, match='B/vis is where .*--out-dir'):
        infer('A', *detector, 'B', after='B/vis')


def test_bad_requests(detector, folders, tmp_path):
    config, checkpoint = detector
    Path('single.py').write_text(SINGLE)
    Path('empty').mkdir()
    save('C/other.png', RED)
    for arguments, after, message in (
        (('A', config), None, 'give the later ones with --after'),
        (('A', 'single.py'), 'B', '--after B is for pairs, but config single'),
        (('A', config), 'none', 'none does not exist'),
        (('A', config), 'B/one.png', 'A and --after B/one.png are an image'),
        (('A/one.png', config), 'B', 'A/one.png and --after B are an image'),
        (('A', config), 'C', 'no image in A has the name of one in --after C'),
        (('A', config), 'empty', 'no image in A has the name of one in'),
        (('empty', config), 'B', 'no image in empty'),
    ):
        with pytest.raises(ConfigError) as caught:
            infer(*arguments, checkpoint, 'out', after=after)
        assert message in str(caught.value)
        assert '\n' not in str(caught.value)
    assert not Path('out').exists()


def test_pair_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    save(tmp_path / 'a.png', RED, (40, 60))
    save(tmp_path / 'b.jpg', BLUE, (60, 40), exif=exif, quality=100)
    pair = read_pair(tmp_path / 'a.png', tmp_path / 'b.jpg')
    assert pair.shape == (60, 40, 6) and pair.dtype == np.uint8
    assert (abs(pair.astype(int) - (*RED, *BLUE)) < 9).all()
    with pytest.raises(UnreadableImage, match='^No such file'):
        read_pair(tmp_path / 'none.png', tmp_path / 'b.jpg')


def test_one_folder_given_twice_is_refused(detector, folders):
    save('A/two.png', RED)
    for before, after in (('A', '../' + Path.cwd().name + '/A'), *ONE_TWICE):
        with pytest.raises(ConfigError, match='are the same; give the later'):
            infer(before, *detector, after=after)


def test_a_published_detector_is_known_by_its_name():
    """Its weights are behind a page that asks for a click."""
    config, weights = find_model('changemamba_vmamba-tiny-s2l4_levir-cd-plus')
    assert find_task(Config.fromfile(config)).takes_pairs
    assert weights is None


def save_geotiff(path, image):
    """Write (H, W, 3) with a place on earth."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    height, width, count = image.shape
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        height=height,
        width=width,
        count=count,
        dtype='uint8',
        photometric='RGB',
        crs='EPSG:32633',
        transform=rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6),
    ) as file:
        file.write(image.transpose(2, 0, 1))


def test_geotiff_pair_is_predicted_in_windows(tmp_path, monkeypatch):
    """Each window's part is what the model says of the window alone."""
    weight = torch.linspace(-1, 1, 8)[:, None, None]
    model = save_detector(tmp_path, weight, 0.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(geotiff, 'WINDOW', 64)
    monkeypatch.setattr(geotiff, 'MARGIN', 16)
    rng = np.random.default_rng(0)
    pair = rng.integers(0, 256, (2, 70, 100, 3), np.uint8)
    parts = geotiff.parts_of(70, 100)
    for folder, image in zip('AB', pair):
        save_geotiff(f'{folder}/x.tif', image)
        for number, part in enumerate(parts):
            rows = slice(part.top, part.top + part.height)
            columns = slice(part.left, part.left + part.width)
            path = Path(f'{folder}/window {number}.png')
            Image.fromarray(image[rows, columns]).save(path)
    summary = infer('A', *model, 'out', after='B')
    assert str(summary) == f'{1 + len(parts)} pairs done, 0 skipped'
    with rasterio.open('out/preds/x.tif') as file:
        labels = file.read(1)
        assert file.crs.to_epsg() == 32633 and file.transform.a == 0.5
    assert 0.02 < labels.mean() < 0.98
    for number, part in enumerate(parts):
        with Image.open(f'out/preds/window {number}.png') as file:
            assert np.array_equal(labels[part.used], part.cut(np.array(file)))
    record = json.loads(Path('out/preds/x.json').read_text())
    shares = {row['name']: row['share'] for row in record.pop('classes')}
    assert shares['changed'] == pytest.approx(labels.mean())
    assert record == dict(
        image='A/x.tif',
        image_after='B/x.tif',
        width=100,
        height=70,
        index_map='x.tif',
    )
    with Image.open('out/vis/x.png') as picture:
        assert picture.width > 3 * 640


def test_geotiff_pairs_that_differ_are_skipped(detector, folders, capsys):
    image = np.zeros((40, 60, 3), np.uint8)
    save_geotiff('A/map.tif', image)
    save_geotiff('B/map.tif', image[:, 1:])
    summary = infer('A', *detector, 'out', after='B')
    assert str(summary) == '1 pair done, 1 skipped'
    assert summary.skipped['A/map.tif'].startswith('it has 60 x 40 pixels')
    assert not Path('out/preds/map.tif').exists()


def test_rasterio_is_asked_for_before_anything_is_done(
    detector, folders, monkeypatch
):
    for folder in 'AB':
        save_geotiff(f'{folder}/map.tif', np.zeros((40, 60, 3), np.uint8))
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    with pytest.raises(UserError, match='pip install rasterio'):
        infer('A', *detector, 'out', after='B')
    assert not Path('out').exists()
