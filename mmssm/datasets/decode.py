"""Image files as the models take them: color, 8 bits a channel."""

import cv2
import numpy as np

from mmssm.utils import UserError


def decode_color(content: bytes, *, upright: bool) -> np.ndarray | None:
    """Decode an image file.

    Args:
        content (bytes): The file's.
        upright (bool): Turn the image as its EXIF data say.

    Returns:
        np.ndarray: (H, W, 3) uint8, blue-green-red; of 16 bits the upper 8.
        None if OpenCV cannot decode it, or it has numbers of another kind.

    Raises:
        UserError: It has 16 bits a channel, of which only the lower ones are
            used: its upper 8 would be (nearly) black.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if not upright:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    if image.dtype == np.uint8:
        return image
    largest = int(image.max())
    if 0 < largest < 1 << 12:
        raise UserError(
            f'it has 16 bits a channel, but no value above {largest}, and '
            'would be black in 8 bits; scale it to 0 to 65535, or to 8 bits'
        )
    return (image >> 8).astype(np.uint8)
