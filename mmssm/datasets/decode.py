"""Decode image files as the models need them: color, 8 bits per channel."""

import cv2
import numpy as np

from mmssm.utils import UserError


def decode_color(content: bytes, *, upright: bool) -> np.ndarray | None:
    """Decode an image file.

    Args:
        content (bytes): The content of the file.
        upright (bool): Whether to rotate the image according to its EXIF data.

    Returns:
        np.ndarray: (H, W, 3) uint8, blue-green-red; the upper 8 bits if the
        file has 16. None if OpenCV cannot decode it, or if it has values of
        another type.

    Raises:
        UserError: It has 16 bits per channel but uses only the lower ones, so
            that the upper 8 would be (nearly) black.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if not upright:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    return to_8_bits(image, check=True)


def to_8_bits(image: np.ndarray, check: bool = False) -> np.ndarray:
    """The upper 8 bits of an image.

    Args:
        image (np.ndarray): uint8 or uint16, of any shape.
        check (bool): Whether to refuse an image of 16 bits that uses only
            the lower ones. Defaults to False, for a part of an image.

    Raises:
        UserError: With ``check``: the upper 8 bits would be (nearly) black.
    """
    if image.dtype == np.uint8:
        return image
    largest = int(image.max())
    if check and 0 < largest < 1 << 12:
        raise UserError(
            f'it has 16 bits a channel, but no value above {largest}, and '
            'would be black in 8 bits; scale it to 0 to 65535, or to 8 bits'
        )
    return (image >> 8).astype(np.uint8)
