"""Load pairs of images as one image of six channels."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.registry import TRANSFORMS

from mmssm.utils import UserError

from .decode import decode_color

CHANGED = 255  # in a label file


@TRANSFORMS.register_module()
class LoadImagePair(BaseTransform):
    """Read a pair of images as one image of six channels.

    Channels 0 to 2 are red, green and blue of the earlier image, 3 to 5 those
    of the later one. These transforms of mmcv and mmseg work on such an image:
    Resize, RandomResize, RandomFlip, RandomCrop, RandomRotFlip, PackSegInputs
    and TestTimeAug. SegDataPreProcessor works with six means and standard
    deviations; its ``bgr_to_rgb`` has no effect, and it pads to a ``size``.
    Pad and ``interpolation='area'`` do not work, since OpenCV supports at
    most four channels there.

    Required keys: ``img_path``, ``img_path_after`` and, optionally, ``tile``
    (top, left, height, width), the part of both images to keep.

    Added keys: ``img``, (H, W, 6) uint8; ``img_shape`` and ``ori_shape``, its
    (H, W); ``pair_shape``, the (H, W) of the files.

    Args:
        backend_args (dict, optional): For mmengine's file backend. Defaults to
            None, the local disk.

    Raises:
        UserError: A file is not an image, it has 16 bits and would be black in
            8, or the two images differ in size. The message names the file.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Read both images, check and join them."""
        before, after = (
            _read_color(results[key], self.backend_args)
            for key in ('img_path', 'img_path_after')
        )
        if before.shape != after.shape:
            raise UserError(
                f'{results["img_path"]} has {_size(before)} pixels, but '
                f'{results["img_path_after"]} has {_size(after)}; the images '
                'of a pair must have one size'
            )
        results['pair_shape'] = before.shape[:2]
        window = _window(results)
        # From OpenCV's blue-green-red to red-green-blue.
        halves = [image[window][..., ::-1] for image in (before, after)]
        results['img'] = np.concatenate(halves, axis=2)
        results['img_shape'] = results['img'].shape[:2]
        results['ori_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'


@TRANSFORMS.register_module()
class LoadChangeLabel(BaseTransform):
    """Read a pair's label: 0 unchanged and 255 changed become 0 and 1.

    Put it after :class:`LoadImagePair`: in a test pipeline also after Resize,
    so that the truth keeps its size; in a training pipeline before all
    transforms that move pixels.

    Required keys: ``seg_map_path``, ``pair_shape`` and, optionally, ``tile``
    (top, left, height, width), the part to keep.

    Added keys: ``gt_seg_map``, (H, W) uint8, and its name in ``seg_fields``.

    Args:
        backend_args (dict, optional): For mmengine's file backend. Defaults to
            None, the local disk.

    Raises:
        UserError: The file is not a gray image, has values other than 0 and
            255, or differs in size from the pair. The message names it.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Read the label, check it and cut its tile."""
        path = results['seg_map_path']
        label = _read_gray(path, self.backend_args)
        if label.shape != results['pair_shape']:
            height, width = results['pair_shape']
            raise UserError(
                f'{path} has {_size(label)} pixels, but {results["img_path"]} '
                f'has {height} x {width}; a label has the size of its pair'
            )
        changed = label == CHANGED
        others = label[~changed & (label != 0)]
        if others.size:
            hint = '; multiply it by 255' if label.max() == 1 else ''
            raise UserError(
                f'{path} has the value {others[0]} in {others.size} pixels; a '
                f'label has 0 for unchanged and 255 for changed{hint}'
            )
        results['gt_seg_map'] = changed[_window(results)].astype(np.uint8)
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'


def _read_color(path: str, backend_args: dict | None) -> np.ndarray:
    """Read an image, (H, W, 3) uint8, blue-green-red.

    The EXIF orientation is ignored, as for labels.
    """
    content = fileio.get(path, backend_args=backend_args)
    try:
        image = decode_color(content, upright=False) if content else None
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error
    if image is None:
        raise UserError(f'{path} is no image that can be read')
    return image


def _read_gray(path: str, backend_args: dict | None) -> np.ndarray:
    """Read a label, (H, W); it may be stored as a gray color image."""
    content = np.frombuffer(fileio.get(path, backend_args=backend_args), 'u1')
    label = None
    if content.size:
        label = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if label is None:
        raise UserError(f'{path} is no image that can be read')
    if label.ndim == 2:
        return label
    # OpenCV decodes palettes to color. A fourth channel is opacity.
    gray, *others = np.moveaxis(label[..., :3], -1, 0)
    if any((gray != other).any() for other in others):
        raise UserError(
            f'{path} has colors; a label is gray, 0 for unchanged and 255 '
            'for changed'
        )
    return gray


def _window(results: dict) -> tuple[slice, slice]:
    """The part of the files that belongs to the sample."""
    height, width = results['pair_shape']
    top, left, height, width = results.get('tile', (0, 0, height, width))
    return np.s_[top : top + height, left : left + width]


def _size(image: np.ndarray) -> str:
    return f'{image.shape[0]} x {image.shape[1]}'
