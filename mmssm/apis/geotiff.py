"""Pairs of GeoTIFF files of any size, read and predicted in windows.

rasterio, which is optional, reads and writes them. Windows overlap: a window's
prediction is used :data:`MARGIN` pixels away from its edges, so that every
pixel is predicted with its surroundings. Memory depends on the window, not on
the image.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress

from mmssm.datasets.change_dataset import tile_starts
from mmssm.datasets.decode import to_8_bits
from mmssm.datasets.headers import image_size, is_georeferenced
from mmssm.utils import UserError, atomic_write

from .images import UnreadableImage
from .tasks import Prediction, Predictor
from .tasks.change_detection import draw_change_map

WINDOW = 1024  # side of a window, pixels
MARGIN = 128  # of a window's prediction, not used except at the image's edges
NO_DATA = 255  # label of pixels that one of the images lacks
SIDE = 1024  # at most, of the images in a picture, pixels
LARGE = 8192  # side of a TIFF file that is not read whole, pixels
CACHE = 256  # of GDAL, MB; by default it grows with the machine's memory

# Labels (H, W) of a pair, (H, W, 6) uint8.
Label = Callable[[np.ndarray], np.ndarray]


class Part(NamedTuple):
    """Where a window is read, and which part of it is used.

    Attributes:
        top, left, height, width (int): The window, in pixels of the image.
        used (tuple[slice, slice]): The part, in pixels of the image.
    """

    top: int
    left: int
    height: int
    width: int
    used: tuple[slice, slice]

    def cut(self, labels: np.ndarray) -> np.ndarray:
        """The used part of a window's labels."""
        rows, columns = self.used
        return labels[
            rows.start - self.top : rows.stop - self.top,
            columns.start - self.left : columns.stop - self.left,
        ]


def takes_windows(paths: tuple[Path, ...]) -> bool:
    """Whether a pair is to be read in windows.

    That is so if one of its files is a TIFF file with a georeference or with
    more than :data:`LARGE` pixels a side.

    Args:
        paths (tuple[Path, ...]): The earlier and the later image.
    """
    return any(is_georeferenced(path) or _is_large(path) for path in paths)


def predict_in_windows(
    predict: Predictor,
    paths: tuple[Path, ...],
    target: Path,
    progress: Progress,
) -> tuple[Prediction, tuple[int, int]]:
    """Predict a pair of files window by window and write the map of labels.

    Args:
        predict (Callable): Predicts a window, (H, W, 6) uint8.
        paths (tuple[Path, ...]): The earlier and the later image.
        target (Path): The GeoTIFF to write, see :func:`write_labels`.
        progress (Progress): Shows a bar of the windows.

    Returns:
        tuple[Prediction, tuple[int, int]]: The prediction, whose label map is
        in ``target``, and the pair's height and width, pixels. Shares are of
        the pixels with data.

    Raises:
        UnreadableImage: See :class:`GeoPair`; or a file cannot be read.
    """
    names: dict[int, str] = {}

    def label(image: np.ndarray) -> np.ndarray:
        prediction = predict(image)
        rows = prediction.record['classes']
        names.update({row['label']: row['name'] for row in rows})
        return prediction.label_map

    with open_pair(*paths) as pair:
        windows = len(parts_of(*pair.shape))
        bar = progress.add_task('windows', total=windows)
        try:
            advance = partial(progress.advance, bar)
            counts = write_labels(pair, label, target, advance)
        finally:
            progress.remove_task(bar)
        image, labels = read_small(pair, target)
    counts[NO_DATA] = 0
    rows = [
        dict(label=i, name=names[i], share=float(counts[i] / counts.sum()))
        for i in map(int, np.argsort(-counts, kind='stable'))
        if counts[i]
    ]
    labels[labels == NO_DATA] = 0
    picture = draw_change_map(image, labels, rows)
    record = dict(classes=rows, index_map=target.name)
    return Prediction(record, picture), pair.shape


def check_rasterio(pairs: Iterable[tuple[Path, ...]]) -> None:
    """Refuse pairs that need rasterio if it is not installed.

    Args:
        pairs (Iterable): The files of each pair.

    Raises:
        UserError: Tells what to install.
    """
    geographic = next((pair for pair in pairs if takes_windows(pair)), None)
    if geographic is not None:
        _import_rasterio(geographic[0])


class GeoPair:
    """An open pair of files on one grid of pixels.

    Args:
        before (Path): The earlier image.
        after (Path): The later image.
        datasets (tuple): Both, opened by rasterio.

    Raises:
        UnreadableImage: The images differ in size or georeference, or their
            pixels are no colors.
    """

    def __init__(self, before: Path, after: Path, datasets: tuple) -> None:
        self.datasets = datasets
        self.shape = datasets[0].shape
        _check_one_grid(after, *datasets)
        self.bands = []
        for path, dataset in zip((before, after), datasets):
            try:
                self.bands.append(_color_bands(dataset))
            except UserError as error:
                raise UnreadableImage(f'{path}: {error}') from error

    def read(self, shape: tuple[int, int] | None = None, **place: Any) -> Any:
        """Read a part of both images.

        Args:
            shape (tuple[int, int], optional): Scale it to this size.
            **place: ``window``, rasterio's, else the whole image.

        Returns:
            np.ndarray: (H, W, 6) uint8, red-green-blue of the earlier image,
            then of the later one.
        """
        halves = []
        for dataset, bands in zip(self.datasets, self.bands):
            size = shape and (len(bands), *shape)
            with _reading():
                image = dataset.read(bands, out_shape=size, **place)
            halves.append(to_8_bits(image))
        return np.ascontiguousarray(np.concatenate(halves).transpose(1, 2, 0))

    def lacks(self, **place: Any) -> np.ndarray:
        """Where one of the images has no data, (H, W) bool."""
        with _reading():
            first, second = (d.dataset_mask(**place) for d in self.datasets)
        return (first == 0) | (second == 0)


@contextmanager
def open_pair(before: Path, after: Path) -> Iterator[GeoPair]:
    """Open a pair of files.

    Args:
        before (Path): The earlier image.
        after (Path): The later image.

    Raises:
        UnreadableImage: See :class:`GeoPair`; or a file cannot be read.
    """
    rasterio = _import_rasterio(before)
    with rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        # A pair without any georeference is fine, too.
        warnings.simplefilter(
            'ignore', rasterio.errors.NotGeoreferencedWarning
        )
        with ExitStack() as files:
            with _reading():
                first = files.enter_context(rasterio.open(before))
                last = files.enter_context(rasterio.open(after))
                pair = GeoPair(before, after, (first, last))
            yield pair


@contextmanager
def _reading() -> Iterator[None]:
    """Turn errors of reading into UnreadableImage; those of writing differ."""
    import rasterio

    try:
        yield
    except rasterio.errors.RasterioIOError as error:
        raise UnreadableImage(str(error)) from error


def parts_of(height: int, width: int) -> list[Part]:
    """The windows that cover an image, row by row.

    Args:
        height (int): Of the image, pixels.
        width (int): Likewise.

    Returns:
        list[Part]: Their used parts cover each pixel once.
    """
    return [
        Part(top, left, tall, wide, (rows, columns))
        for top, tall, rows in _cover(height)
        for left, wide, columns in _cover(width)
    ]


def write_labels(
    pair: GeoPair, label: Label, path: Path, advance: Callable[[], object]
) -> np.ndarray:
    """Predict a pair window by window and write the map of labels.

    The file is a GeoTIFF with the pair's georeference, 8 bits a pixel;
    :data:`NO_DATA` where one of the images has no data.

    Args:
        pair (GeoPair): The open pair.
        label (Callable): Predicts a window.
        path (Path): The file to write.
        advance (Callable): Called after each window.

    Returns:
        np.ndarray: (256,) pixels of each label.

    Raises:
        OSError: The file cannot be written.
    """
    import rasterio
    from rasterio.windows import Window

    first = pair.datasets[0]
    profile = dict(
        driver='GTiff',
        height=pair.shape[0],
        width=pair.shape[1],
        count=1,
        dtype='uint8',
        nodata=NO_DATA,
        crs=first.crs,
        transform=first.transform,
        compress='deflate',
        # Used parts begin at multiples of the margin.
        tiled=True,
        blockxsize=MARGIN,
        blockysize=MARGIN,
        bigtiff='IF_SAFER',
    )
    counts = np.zeros(256, np.int64)
    with atomic_write(path) as file:
        with rasterio.open(file.name, 'w', **profile) as target:
            for part in parts_of(*pair.shape):
                top, left, height, width, (rows, columns) = part
                window = Window(left, top, width, height)
                labels = label(pair.read(window=window)).astype(np.uint8)
                labels[pair.lacks(window=window)] = NO_DATA
                labels = part.cut(labels)
                place = Window.from_slices(rows, columns)
                target.write(labels, 1, window=place)
                counts += np.bincount(labels.ravel(), minlength=256)
                advance()
        _check_written(Path(file.name), path)
    return counts


def read_small(pair: GeoPair, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a pair and its map of labels, scaled down for a picture.

    Args:
        pair (GeoPair): The open pair.
        path (Path): What :func:`write_labels` has written.

    Returns:
        tuple[np.ndarray, np.ndarray]: The pair, (H, W, 6) uint8, and labels,
        (H, W) uint8, both at most :data:`SIDE` pixels a side.
    """
    import rasterio

    scale = min(1, SIDE / max(pair.shape))
    height, width = (max(1, round(scale * side)) for side in pair.shape)
    with rasterio.open(path) as file:
        labels = file.read(1, out_shape=(height, width))
    return pair.read((height, width)), labels


def _check_written(file: Path, path: Path) -> None:
    """Read all of a file: GDAL does not tell if its last blocks are lost."""
    import rasterio

    try:
        with rasterio.open(file) as written:
            for _, window in written.block_windows(1):
                written.read(1, window=window)
    except rasterio.errors.RasterioIOError as error:
        raise OSError(
            f'{path} cannot be written completely; is the disk full?'
        ) from error


def _cover(length: int) -> list[tuple[int, int, slice]]:
    """Start, length and used part of the windows along one side."""
    side = min(length, WINDOW)
    starts = tile_starts(length, side, WINDOW - 2 * MARGIN)
    # A used part begins where the one before it ends.
    ends = [start + side - MARGIN for start in starts[:-1]] + [length]
    return [
        (start, side, slice(begin, end))
        for start, begin, end in zip(starts, [0, *ends], ends)
    ]


def _is_large(path: Path) -> bool:
    if path.suffix.lower() not in ('.tif', '.tiff'):
        return False
    try:
        return max(image_size(path)) > LARGE
    except UserError:
        return False  # reading it will say what is wrong


def _import_rasterio(path: Path) -> ModuleType:
    try:
        import rasterio
    except ImportError as error:
        raise UserError(
            f'{path} is a GeoTIFF or a large TIFF file, which rasterio reads '
            f'({error}); install it: pip install rasterio'
        ) from error
    return rasterio


def _check_one_grid(after: Path, first: Any, last: Any) -> None:
    """Refuse images whose pixels are not of the same places."""
    if first.shape != last.shape:
        sizes = [f'{d.width} x {d.height}' for d in (first, last)]
        raise UnreadableImage(
            f'it has {sizes[0]} pixels, but {after} has {sizes[1]}; the '
            'images of a pair must have one size'
        )
    if first.crs != last.crs:
        names = [d.crs.to_string() if d.crs else 'none' for d in (first, last)]
        raise UnreadableImage(
            f'its coordinate system is {names[0]}, but that of {after} is '
            f'{names[1]}; warp one image to the grid of the other'
        )
    height, width = first.shape
    for corner in ((0, 0), (width, 0), (0, height)):
        # The later image's pixel that is at the earlier one's corner.
        column, row = _apply(
            ~last.transform, *_apply(first.transform, *corner)
        )
        shift = max(abs(column - corner[0]), abs(row - corner[1]))
        if shift > 0.01:
            raise UnreadableImage(
                f'its pixels are up to {shift:.3g} pixels away from those of '
                f'{after}; warp one image to the grid of the other'
            )


def _apply(transform: Any, x: float, y: float) -> tuple[float, float]:
    """An affine transformation; its own operator depends on the release."""
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )


def _color_bands(dataset: Any) -> list[int]:
    """The numbers of the bands with red, green and blue.

    Raises:
        UserError: They are not known, or their values are no colors.
    """
    kinds = [kind.name for kind in dataset.colorinterp]
    if 'palette' in kinds:
        raise UserError(
            'it has a palette; make it RGB: gdal_translate -expand rgb'
        )
    colors = ['red', 'green', 'blue']
    if all(kinds.count(color) == 1 for color in colors):
        bands = [kinds.index(color) + 1 for color in colors]
    elif dataset.count == 3:
        bands = [1, 2, 3]
    elif kinds in (['gray'], ['gray', 'alpha']):
        bands = [1, 1, 1]
    else:
        raise UserError(
            f'it has {dataset.count} bands and does not tell which are red, '
            'green and blue; write these three to a file of their own: '
            'gdal_translate -b 1 -b 2 -b 3'
        )
    kind = dataset.dtypes[bands[0] - 1]
    if kind not in ('uint8', 'uint16'):
        raise UserError(
            f'its values are {kind}; models take 8 or 16 bits without sign: '
            'gdal_translate -ot Byte -scale'
        )
    if kind == 'uint16':
        # A sample of the whole image: one window may well be dark.
        shape = [min(side, SIDE) for side in dataset.shape]
        to_8_bits(dataset.read(bands, out_shape=(3, *shape)), check=True)
    return bands
