"""LEVIR-CD+: pairs of aerial images and the buildings that changed."""

import os.path as osp
from typing import Any

from mmengine import fileio
from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmssm.utils import UserError

# Other suffixes of images; a file with one of them may be named wrongly.
_IMAGES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp')
FOLDERS = ('img_path', 'img_path_after', 'seg_map_path')


@DATASETS.register_module()
class LEVIRCDPlusDataset(BaseSegDataset):
    """Pairs of images of one place, before and after, and what changed.

    LEVIR-CD+ has 985 pairs of 1024 x 1024 pixels, 637 in ``train`` and 348 in
    ``test``. Each split has the folders ``A`` (before), ``B`` (after) and
    ``label`` (0 unchanged, 255 changed); the three files of a pair have the
    same name. Other datasets of this structure can be read too.

    A sample names the files as ``img_path``, ``img_path_after`` and
    ``seg_map_path``, which :class:`LoadImagePair` and
    :class:`LoadChangeLabel` read. The pair becomes one image of six channels,
    so that transforms of mmcv and mmseg change both images in the same way.

    Args:
        data_prefix (dict): The folders in ``data_root``, with the keys
            ``img_path``, ``img_path_after`` and ``seg_map_path``.
        tile_size (int, optional): Split each pair into square tiles of this
            many pixels a side; 256 gives 16 tiles for a pair of LEVIR-CD+. A
            sample has the position of its tile as ``tile``, (top, left,
            height, width). The tile is cut out when the pair is loaded;
            nothing is written. If the image size is not a multiple of
            ``tile_size``, the last tiles overlap their neighbors. Defaults to
            None, whole pairs.
        img_suffix (str): Suffix of the images. Defaults to ``'.png'``.
        **kwargs: The other arguments of mmseg's ``BaseSegDataset``. If there
            is an ``ann_file``, only the pairs that it lists are used: names
            without suffix, one per line.

    Raises:
        UserError: A folder is not given or is empty, a file of a pair is
            missing, or an image has another suffix or is smaller than a tile.
            The message names it.
    """

    METAINFO = dict(
        classes=('unchanged', 'changed'), palette=[(0, 0, 0), (255, 255, 255)]
    )

    def __init__(
        self,
        data_prefix: dict[str, str],
        tile_size: int | None = None,
        img_suffix: str = '.png',
        **kwargs: Any,
    ) -> None:
        if sorted(data_prefix) != sorted(FOLDERS):
            raise UserError(
                f'data_prefix has {", ".join(data_prefix) or "nothing"}, but '
                f'pairs need the folders {", ".join(FOLDERS)} of the images '
                'before, the images after and the labels'
            )
        if tile_size is not None and not (
            isinstance(tile_size, int) and tile_size > 0
        ):
            raise UserError(
                'tile_size must be a whole number of pixels from 1, got '
                f'{tile_size!r}; None gives whole pairs'
            )
        self.tile_size = tile_size
        super().__init__(
            data_prefix=data_prefix, img_suffix=img_suffix, **kwargs
        )
        if self.label_map or self.reduce_zero_label:
            raise UserError(
                'reduce_zero_label or metainfo.classes would renumber the '
                'labels, which are 0 unchanged and 1 changed; leave them out'
            )

    def load_data_list(self) -> list[dict]:
        """List the pairs, or their tiles, in the order of their names.

        Raises:
            UserError: See the class.
        """
        pairs = self._list_pairs()
        if self.tile_size is None:
            return pairs
        return [
            dict(pair, tile=tile)
            for pair in pairs
            for tile in self._tiles_of(pair['img_path'])
        ]

    def _list_pairs(self) -> list[dict[str, str]]:
        """List the three files of each pair, and check that they exist."""
        suffixes = dict.fromkeys(FOLDERS, self.img_suffix)
        suffixes['seg_map_path'] = self.seg_map_suffix
        found = {key: self._list_names(key, suffixes[key]) for key in FOLDERS}
        names = self._wanted(found)
        missing = [
            self._path(key, name, suffixes[key])
            for key in FOLDERS
            for name in sorted(names - found[key])
        ]
        if missing:
            others = len(missing) - 1
            more = f', and {others} more files' if others else ''
            raise UserError(
                f'{missing[0]} is missing{more}: a pair is an image before, '
                'an image after and a label of the same name'
            )
        return [
            {key: self._path(key, name, suffixes[key]) for key in FOLDERS}
            for name in sorted(names)
        ]

    def _wanted(self, found: dict[str, set[str]]) -> set[str]:
        """The names of all pairs, or of those that ``ann_file`` lists."""
        if not self.ann_file:
            names = set().union(*found.values())
            if not names:
                raise UserError(
                    f'no pair in {self.data_prefix["img_path"]}: no name '
                    f'there ends in {self.img_suffix}'
                )
            return names
        lines = fileio.list_from_file(
            self.ann_file, backend_args=self.backend_args
        )
        names = {line.strip() for line in lines} - {''}
        if not names:
            raise UserError(f'{self.ann_file} lists no pair')
        return names

    def _list_names(self, key: str, suffix: str) -> set[str]:
        """The names in a folder, without their suffix."""
        folder = self.data_prefix[key]
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise UserError(
                f'folder {folder} does not exist; set data_root and '
                f'data_prefix.{key} to where the data is'
            )
        files = [
            name
            for name in fileio.list_dir_or_file(
                folder, list_dir=False, backend_args=self.backend_args
            )
            if not name.startswith('.')
        ]
        option = 'seg_map_suffix' if key == 'seg_map_path' else 'img_suffix'
        for name in sorted(files):
            if not name.endswith(suffix) and name.lower().endswith(_IMAGES):
                raise UserError(
                    f'{osp.join(folder, name)} does not end in {suffix}; '
                    f'rename it, move it away, or set {option}'
                )
        return {n.removesuffix(suffix) for n in files if n.endswith(suffix)}

    def _path(self, key: str, name: str, suffix: str) -> str:
        return osp.join(self.data_prefix[key], name + suffix)

    def _tiles_of(self, path: str) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) of each tile; reads the file's header."""
        with fileio.get_local_path(
            path, backend_args=self.backend_args
        ) as local:
            try:
                with Image.open(local) as image:
                    width, height = image.size
            except OSError as error:
                raise UserError(
                    f'{path} is no image that can be read'
                ) from error
        side = self.tile_size
        if min(width, height) < side:
            raise UserError(
                f'{path} has {height} x {width} pixels, less than '
                f'tile_size={side}; choose smaller tiles'
            )
        return [
            (top, left, side, side)
            for top in _starts(height, side)
            for left in _starts(width, side)
        ]


def _starts(length: int, side: int) -> list[int]:
    """Positions of the tiles that cover a length; the last ends with it."""
    return [*range(0, length - side, side), length - side]
