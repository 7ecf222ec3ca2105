"""Pairs of GeoTIFF files, predicted in windows."""

import resource
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rich.progress import Progress

from mmssm.apis import geotiff
from mmssm.apis.geotiff import (
    MARGIN,
    NO_DATA,
    WINDOW,
    check_rasterio,
    open_pair,
    parts_of,
    predict_in_windows,
    takes_windows,
)
from mmssm.apis.images import UnreadableImage, read_pair
from mmssm.apis.tasks import Prediction
from mmssm.utils import UserError

CRS = 'EPSG:32633'
PLACE = rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)


def write(path, image, crs=CRS, transform=PLACE, **profile):
    """Write an image (H, W, C) as a GeoTIFF."""
    bands = np.atleast_3d(image).transpose(2, 0, 1)
    count, height, width = bands.shape
    profile = dict(photometric='RGB') | profile if count == 3 else profile
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        height=height,
        width=width,
        count=count,
        dtype=bands.dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as file:
        file.write(bands)
    return Path(path)


def random_pair(folder, height, width, **options):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in 'ab']
    paths = tuple(
        write(folder / f'{name}.tif', image, **options)
        for name, image in zip('ab', images)
    )
    return paths, np.concatenate(images, 2)


def brighter(pair):
    """A prediction that depends on each pixel alone."""
    return (pair[..., 3] > pair[..., 0]).astype(np.uint8)


def predictor(label):
    """What predict_in_windows takes, for a function of a pair."""

    def predict(pair):
        labels = label(pair)
        rows = [
            dict(label=int(i), name=f'class {i}', share=0.0)
            for i in np.unique(labels)
        ]
        return Prediction(dict(classes=rows), None, labels)

    return predict


def run(paths, target, label=brighter):
    with Progress(disable=True) as progress:
        return predict_in_windows(predictor(label), paths, target, progress)


def labels_of(path):
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(geotiff, 'WINDOW', 64)
    monkeypatch.setattr(geotiff, 'MARGIN', 16)


@pytest.mark.parametrize('size', [(150, 101), (64, 64), (65, 200), (7, 9)])
def test_windows_give_what_the_whole_image_gives(
    tmp_path, small_windows, size
):
    paths, pair = random_pair(tmp_path, *size)
    prediction, shape = run(paths, tmp_path / 'out.tif')
    assert shape == size
    assert np.array_equal(labels_of(tmp_path / 'out.tif'), brighter(pair))
    share = brighter(pair).mean()
    shares = {r['label']: r['share'] for r in prediction.record['classes']}
    assert shares == {0: pytest.approx(1 - share), 1: pytest.approx(share)}
    assert prediction.record['index_map'] == 'out.tif'
    assert prediction.label_map is None


def test_every_pixel_is_predicted_away_from_a_windows_edge(
    tmp_path, small_windows
):
    """The labels tell how far a pixel is from the edges of its window."""

    def distance(pair):
        rows, columns = np.indices(pair.shape[:2])
        height, width = pair.shape[:2]
        sides = (rows, columns, height - 1 - rows, width - 1 - columns)
        return np.min(sides, 0).clip(max=16).astype(np.uint8)

    paths, pair = random_pair(tmp_path, 150, 101)
    run(paths, tmp_path / 'out.tif', distance)
    assert np.array_equal(labels_of(tmp_path / 'out.tif'), distance(pair))


@pytest.mark.parametrize('size', [(1, 1), (1024, 1025), (3000, 20_001)])
def test_used_parts_cover_each_pixel_once(size):
    covered = np.zeros(size, np.uint8)
    for part in parts_of(*size):
        assert part.height <= WINDOW and part.width <= WINDOW
        covered[part.used] += 1
        window = np.zeros((part.height, part.width))
        assert part.cut(window).shape == covered[part.used].shape
        # A block of the file is then written once.
        assert part.used[0].start % MARGIN == part.used[1].start % MARGIN == 0
    assert (covered == 1).all()


def test_result_has_the_georeference(tmp_path):
    paths, _ = random_pair(tmp_path, 30, 40)
    run(paths, tmp_path / 'out.tif')
    with rasterio.open(tmp_path / 'out.tif') as file:
        assert file.crs == rasterio.CRS.from_string(CRS)
        assert file.transform == PLACE
        assert (file.count, file.dtypes, file.nodata) == (1, ('uint8',), 255)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {'a.tif', 'b.tif', 'out.tif'}


def test_memory_does_not_grow_with_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr(geotiff, 'WINDOW', 256)
    monkeypatch.setattr(geotiff, 'MARGIN', 32)
    monkeypatch.setattr(geotiff, 'SIDE', 256)

    def peak(side):
        image = np.zeros((side, side, 3), np.uint8)
        options = dict(tiled=True, compress='deflate')
        paths = [
            write(tmp_path / f'{side}{n}.tif', image, **options) for n in 'ab'
        ]
        del image
        tracemalloc.start()
        run(paths, tmp_path / 'out.tif')
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(512)  # imports
    assert peak(1536) < 1.1 * peak(512)


def test_pixels_without_data_are_left_out(tmp_path):
    image = np.full((20, 30, 3), 50, np.uint8)
    image[:5] = 0
    before = write(tmp_path / 'a.tif', image, nodata=0)
    after = write(tmp_path / 'b.tif', np.full_like(image, 90))
    prediction, _ = run((before, after), tmp_path / 'out.tif')
    labels = labels_of(tmp_path / 'out.tif')
    assert (labels[:5] == NO_DATA).all() and (labels[5:] == 1).all()
    (row,) = prediction.record['classes']
    assert row == dict(label=1, name='class 1', share=1.0)


@pytest.mark.parametrize(
    'interpretation, order',
    [
        (['blue', 'green', 'red', 'undefined'], [2, 1, 0]),
        (['red', 'green', 'blue', 'alpha'], [0, 1, 2]),
    ],
)
def test_bands_are_those_that_the_file_names(tmp_path, interpretation, order):
    image = np.full((6, 8, 4), (10, 20, 30, 255), np.uint8)
    paths = [write(tmp_path / f'{name}.tif', image) for name in 'ab']
    for path in paths:
        with rasterio.open(path, 'r+') as file:
            file.colorinterp = [ColorInterp[name] for name in interpretation]
    with open_pair(*paths) as pair:
        assert (pair.read() == np.tile([10, 20, 30], 2)[[*order] * 2]).all()


def test_gray_and_16_bits_are_read_as_other_images_are(tmp_path):
    gray = np.full((6, 8, 1), 77, np.uint8)
    deep = np.full((6, 8, 3), 200 << 8, np.uint16)
    paths = write(tmp_path / 'a.tif', gray), write(tmp_path / 'b.tif', deep)
    with open_pair(*paths) as pair:
        assert (pair.read() == [77] * 3 + [200] * 3).all()
    assert (read_pair(*paths) == [77] * 3 + [200] * 3).all()


def rgb(dtype=np.uint8, bands=3, value=5000):
    return np.full((30, 40, bands), value, dtype)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(image=np.zeros((30, 41, 3), np.uint8)), '40 x 30 .* 41 x 30'),
        (dict(crs='EPSG:32634'), 'EPSG:32633, but that of .* is EPSG:32634'),
        (dict(crs=None), 'but that of .*b.tif is none'),
        (
            dict(transform=PLACE @ rasterio.Affine.translation(2.5, 0)),
            'up to 2.5 pixels away from those of .*b.tif; warp',
        ),
        (
            dict(transform=PLACE @ rasterio.Affine.scale(1.1)),
            'up to .* pixels away',
        ),
        (dict(image=rgb(np.float32)), 'b.tif: its values are float32'),
        (dict(image=rgb(np.uint16, 3, 4000)), r'b.tif: .*no value above 4000'),
        (dict(image=rgb(np.uint8, 5, 9)), 'b.tif: it has 5 bands and does'),
        (dict(image=rgb(np.uint8, 2, 9)), 'b.tif: it has 2 bands and does'),
    ],
)
def test_pairs_that_do_not_fit_are_refused(tmp_path, change, message):
    image = np.zeros((30, 40, 3), np.uint8)
    before = write(tmp_path / 'a.tif', image)
    after = write(tmp_path / 'b.tif', **dict(image=image) | change)
    with pytest.raises(UnreadableImage, match=message) as caught:
        run((before, after), tmp_path / 'out.tif')
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'out.tif').exists()


def test_float_errors_of_the_georeference_are_no_difference(tmp_path):
    image = np.zeros((30, 40, 3), np.uint8)
    nearly = PLACE @ rasterio.Affine.translation(1e-4, 0)
    paths = (
        write(tmp_path / 'a.tif', image),
        write(tmp_path / 'b.tif', image, transform=nearly),
    )
    run(paths, tmp_path / 'out.tif')


def test_palette_is_refused(tmp_path):
    paths = [
        write(tmp_path / f'{n}.tif', np.zeros((9, 9, 1), 'u1')) for n in 'ab'
    ]
    with rasterio.open(paths[1], 'r+') as file:
        file.write_colormap(1, {0: (1, 2, 3)})
    with pytest.raises(UnreadableImage, match='b.tif: it has a palette'):
        run(paths, tmp_path / 'out.tif')


def test_damaged_file_leaves_nothing(tmp_path):
    paths, _ = random_pair(tmp_path, 200, 200)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableImage):
        run(paths, tmp_path / 'out.tif')
    assert {p.name for p in tmp_path.iterdir()} == {'a.tif', 'b.tif'}


def test_an_error_of_writing_is_not_one_of_the_images(tmp_path):
    paths, _ = random_pair(tmp_path, 400, 400)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:  # as on a full disk
        with pytest.raises(OSError, match='written completely'):
            run(paths, tmp_path / 'out.tif')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name for p in tmp_path.iterdir()} == {'a.tif', 'b.tif'}


def test_only_georeferenced_and_large_tiff_files_take_windows(
    tmp_path, monkeypatch
):
    geographic = random_pair(tmp_path, 30, 40)[0]
    for name in ('plain.tif', 'plain.png', 'named.tif'):
        Image.new('RGB', (40, 30)).save(tmp_path / name)
    (tmp_path / 'named.tfw').write_text('0.5\n0\n0\n-0.5\n0\n0\n')
    (tmp_path / 'cut.tif').write_bytes(geographic[0].read_bytes()[:100])
    (tmp_path / 'empty.tif').touch()
    big = write(tmp_path / 'big.tif', rgb(value=9), BIGTIFF='YES')

    def taken(*names):
        return takes_windows(tuple(tmp_path / name for name in names))

    assert takes_windows(geographic)
    assert taken('plain.tif', 'a.tif') and taken('named.tif', 'plain.tif')
    assert taken(big.name, 'plain.tif')
    assert not taken('plain.tif', 'plain.tif')
    assert not taken('plain.png', 'plain.png')
    assert not taken('cut.tif', 'empty.tif') and not taken('no.tif', 'no.tif')
    monkeypatch.setattr(geotiff, 'LARGE', 39)
    assert taken('plain.tif', 'plain.tif')
    assert not taken('plain.png', 'plain.png')


def test_missing_rasterio_is_one_line(tmp_path, monkeypatch):
    paths, _ = random_pair(tmp_path, 30, 40)
    Image.new('RGB', (40, 30)).save(tmp_path / 'plain.png')
    monkeypatch.setitem(sys.modules, 'rasterio', None)
    check_rasterio([(tmp_path / 'plain.png',) * 2])
    with pytest.raises(UserError, match='pip install rasterio$') as caught:
        check_rasterio([(tmp_path / 'plain.png',) * 2, paths])
    assert str(caught.value).startswith(f'{paths[0]} is a GeoTIFF')
    assert '\n' not in str(caught.value)
