"""Writing images, with an error where OpenCV has none."""

from pathlib import Path

import cv2
import numpy as np

JPEG_QUALITY = 90


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image in the format of the path's suffix.

    ``cv2.imwrite`` reports a full disk by returning False; this raises.

    Args:
        path (Path): Ends in ``.jpg`` or ``.png``.
        image (np.ndarray): (H, W, 3) uint8, blue-green-red, or (H, W) uint8.

    Raises:
        OSError: If the file cannot be written.
    """
    jpeg = path.suffix == '.jpg'
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if jpeg else []
    _, data = cv2.imencode(path.suffix, image, options)
    path.write_bytes(data.tobytes())
