"""What image files tell of themselves, without their pixels."""

import struct
import warnings
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mmssm.utils import UserError

_WIDTH, _HEIGHT = 256, 257
# Scale, tie points, transformation and keys: the tags of GeoTIFF.
_GEOGRAPHIC = {33550, 33922, 34264, 34735}


def image_size(path: str | Path) -> tuple[int, int]:
    """The height and width of an image file, in pixels.

    Args:
        path (str or Path): The file.

    Raises:
        UserError: The file is no image, or it has more pixels than Pillow
            opens. The message is to follow the file's name.
    """
    tags = read_tiff_tags(path)
    if {_HEIGHT, _WIDTH} <= tags.keys():
        return tags[_HEIGHT], tags[_WIDTH]
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Image.DecompressionBombError as error:
        raise UserError(
            'has too many pixels to be opened as one image; cut it into '
            'smaller ones'
        ) from error
    except OSError as error:
        raise UserError('is no image that can be read') from error


def is_georeferenced(path: str | Path) -> bool:
    """Whether a TIFF file, or a world file beside it, tells where it is."""
    tags = read_tiff_tags(path)
    return bool(tags) and (
        bool(_GEOGRAPHIC & tags.keys())
        or Path(path).with_suffix('.tfw').exists()
    )


def read_tiff_tags(path: str | Path) -> dict[int, Any]:
    """The tags of a TIFF file's first image, by number; BigTIFF, too.

    Args:
        path (str or Path): The file.

    Returns:
        dict[int, Any]: Empty if it is no TIFF file that can be read.
    """
    try:
        with open(path, 'rb') as file, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of tags that are cut short
            start = file.read(16)
            kind = start[:4]
            if kind in (b'II*\0', b'MM\0*'):
                start = start[:8]
            elif kind not in (b'II+\0', b'MM\0+'):
                return {}
            directory = ImageFileDirectory_v2(start)
            file.seek(directory.next)
            directory.load(file)
            return dict(directory)
    except (struct.error, SyntaxError, OSError, ValueError, KeyError):
        return {}
