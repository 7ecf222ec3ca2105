"""Finding and reading the images to predict for."""

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mmssm.datasets.decode import decode_color
from mmssm.utils import ConfigError, UserError
from mmssm.utils.files import free_name

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')

PARTS = ('vis', 'preds')  # the folders with results


class UnreadableImage(UserError):
    """An image file cannot be read; the message is the reason."""


@dataclass
class Found:
    """The images of a folder, or the pairs of two folders.

    Attributes:
        images (dict[str, tuple[Path, ...]]): By the name of the results, one
            image, or the earlier and the later image of a pair.
        skipped (dict[str, str]): By path, why a subfolder could not be listed
            or why an image has no partner.
    """

    images: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def find_images(inputs: Path, out_dir: Path) -> Found:
    """Find the images and name their results.

    Args:
        inputs (Path): An image, or a folder to search.
        out_dir (Path): Where the results will go.

    Returns:
        Found: The images, sorted by path, with unique names.

    Raises:
        ConfigError: There is no image, or it is in a folder of results.
    """
    found = Found()
    if inputs.is_file():
        folder, images = inputs.parent, [inputs]
    else:
        folder, images = inputs, _search(inputs, out_dir, found.skipped)
    if not images and not found.skipped:
        raise ConfigError(
            f'no image in {inputs}; expected files ending in '
            f'{" ".join(suffix[1:] for suffix in SUFFIXES)}'
        )
    _check_place(inputs, out_dir)
    stems = Counter(_key(path.with_suffix('')) for path in images)
    taken = set()
    for path in images:
        alone = stems[_key(path.with_suffix(''))] == 1
        name = path.with_suffix('') if alone else path
        name = free_name(str(name.relative_to(folder)), taken)
        taken.add(name.lower())
        found.images[name] = (path,)
    return found


def find_pairs(before: Path, after: Path, out_dir: Path) -> Found:
    """Find pairs of images: files of the same name in two folders.

    Args:
        before (Path): An earlier image, or a folder to search.
        after (Path): The later image, or the folder with the later images.
        out_dir (Path): Where the results will go.

    Returns:
        Found: The pairs, sorted by the earlier image's path. Images without
        a partner are in ``skipped``.

    Raises:
        ConfigError: There is no pair, the inputs are an image and a folder,
            or the images are in a folder of results.
    """
    if before.is_file() != after.is_file():
        raise ConfigError(
            f'{before} and --after {after} are an image and a folder; give '
            'two images, or two folders with images of the same names'
        )
    if before.resolve() == after.resolve():
        raise ConfigError(
            f'{before} and --after {after} are the same; give the later '
            'images there'
        )
    found = find_images(before, out_dir)
    _check_place(after, out_dir)
    if before.is_file():
        found.images = {name: (before, after) for name in found.images}
        return found
    later = set(_search(after, out_dir, found.skipped))
    earlier_names = _by_stem(
        path.relative_to(before) for (path,) in found.images.values()
    )
    later_names = _by_stem(path.relative_to(after) for path in later)
    for name, (path,) in list(found.images.items()):
        partner = after / path.relative_to(before)
        if partner in later:
            found.images[name] = (path, partner)
            later.remove(partner)
        else:
            del found.images[name]
            found.skipped[str(path)] = _no_partner(
                path.relative_to(before), after, later_names
            )
    if not found.images:
        raise ConfigError(
            f'no image in {before} has the name of one in --after {after}; '
            'the images of a pair must have the same name'
        )
    for path in sorted(later):
        found.skipped[str(path)] = _no_partner(
            path.relative_to(after), before, earlier_names
        )
    return found


def _by_stem(names: Iterable[Path]) -> dict[str, Path]:
    """Names, by their lowercase form without the suffix."""
    return {_key(name.with_suffix('')): name for name in names}


def _no_partner(name: Path, folder: Path, others: dict[str, Path]) -> str:
    """Say that an image has no partner, and name a similar file."""
    similar = others.get(_key(name.with_suffix('')))
    hint = f', but {similar}; give both the same name' if similar else ''
    return f'no image of this name in {folder}{hint}'


def _check_place(inputs: Path, out_dir: Path) -> None:
    """Refuse inputs in a folder of results, which would replace them."""
    place = (inputs.parent if inputs.is_file() else inputs).resolve()
    if _results(out_dir) & {place, *place.parents}:
        raise ConfigError(
            f'{inputs} is where the results would go; choose another --out-dir'
        )


def _search(
    folder: Path, out_dir: Path, skipped: dict[str, str]
) -> list[Path]:
    """The images in a folder and below it, except hidden ones and results."""
    results = _results(out_dir)

    def refuse(error: OSError) -> None:
        skipped[str(error.filename)] = error.strerror or str(error)

    images = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [
            name
            for name in folders
            if not name.startswith('.')
            and Path(parent, name).resolve() not in results
        ]
        images += [
            Path(parent, name)
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith('.')
        ]
    return sorted(images)


def _results(out_dir: Path) -> set[Path]:
    return {(out_dir / part).resolve() for part in PARTS}


def _key(path: Path | str) -> str:
    """The name in lower case: some file systems ignore the case."""
    return str(path).lower()


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image file as the test pipelines do, or say why not.

    Args:
        path (str | Path): The file.

    Returns:
        np.ndarray: (H, W, 3) uint8, blue-green-red, upright.

    Raises:
        UnreadableImage: The file is no complete image or cannot be opened.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    if not content:
        raise UnreadableImage('the file is empty (0 bytes)')
    _check_whole(content)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # or OpenCV prints warnings
    try:
        image = decode_color(content, upright=True)
    except cv2.error:  # more pixels than OpenCV allows
        image = None
    except ValueError as error:
        raise UnreadableImage(str(error)) from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise UnreadableImage(
            'not an image that OpenCV can decode; it takes 8 and 16 bits per '
            'channel'
        )
    return image


def read_pair(before: str | Path, after: str | Path) -> np.ndarray:
    """Decode a pair of images into one array, as change detection needs.

    Args:
        before (str | Path): The earlier image's file.
        after (str | Path): The later image's file.

    Returns:
        np.ndarray: (H, W, 6) uint8, red-green-blue of the earlier image, then
        of the later one, upright.

    Raises:
        UnreadableImage: An image cannot be read, or the sizes differ.
    """
    first = read_image(before)
    try:
        second = read_image(after)
    except UnreadableImage as error:
        raise UnreadableImage(f'{after}: {error}') from error
    if first.shape != second.shape:
        sizes = [f'{i.shape[1]} x {i.shape[0]}' for i in (first, second)]
        raise UnreadableImage(
            f'it has {sizes[0]} pixels, but {after} has {sizes[1]}; the '
            'images of a pair must have one size'
        )
    return np.concatenate((first[..., ::-1], second[..., ::-1]), -1)


def _check_whole(content: bytes) -> None:
    """Refuse a file that is cut short; OpenCV 4 fills the rest with gray."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            Image.open(io.BytesIO(content)).load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        pass  # a format or a size that Pillow refuses: OpenCV decides
    except MemoryError:
        raise
    except Exception as error:  # its type depends on the format
        raise UnreadableImage(
            f'the image is damaged or cut short ({error})'
        ) from error
