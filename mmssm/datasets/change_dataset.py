"""Pairs of images of one place, and what changed between them."""

import os.path as osp
from typing import Any

from mmengine import fileio
from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from mmssm.utils import UserError

from .headers import image_size

_IMAGES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp')
FOLDERS = ('img_path', 'img_path_after', 'seg_map_path')


# The second name is the old one; configs still use it.
@DATASETS.register_module(name=['ChangeDataset', 'LEVIRCDPlusDataset'])
class ChangeDataset(BaseSegDataset):
    """Pairs of images of one place, before and after, and what changed.

    Earlier images, later images and labels (0 unchanged, 255 changed) are in
    three folders. The three files of a pair have the same name; their suffixes
    may differ. Datasets come in this form:

    - LEVIR-CD+: ``{train,test}/{A,B,label}``, 637 and 348 pairs of 1024 x 1024
      pixels;
    - SYSU-CD: ``{train,val,test}/{time1,time2,label}``, 12,000, 4,000 and
      4,000 pairs of 256 x 256;
    - what ChangeMamba's code reads: ``{train,val,test}/{T1,T2,GT}``, with
      lists of names beside them.

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
        img_suffix (str, optional): How the names of images end; other files
            are left out. Defaults to None: png, jpg, tif, bmp and webp files.
        seg_map_suffix (str, optional): The same for labels.
        ann_file (str): A list of names in ``data_root``, one per line, with
            or without suffix: only these pairs are used. Defaults to ``''``,
            all pairs.
        **kwargs: The other arguments of mmseg's ``BaseSegDataset``.

    Raises:
        UserError: A folder is not given or is empty, a file of a pair is
            missing, two files have one name, or an image is smaller than a
            tile. The message names it.
    """

    METAINFO = dict(
        classes=('unchanged', 'changed'), palette=[(0, 0, 0), (255, 255, 255)]
    )

    def __init__(
        self,
        data_prefix: dict[str, str],
        tile_size: int | None = None,
        img_suffix: str | None = None,
        seg_map_suffix: str | None = None,
        ann_file: str = '',
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
            data_prefix=data_prefix,
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            ann_file=ann_file,
            **kwargs,
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
        found = {key: self._list_files(key) for key in FOLDERS}
        names = self._wanted(found)
        missing = [
            osp.join(self.data_prefix[key], self._likely_file(name, found))
            for key in FOLDERS
            for name in sorted(names - found[key].keys())
        ]
        if missing:
            others = len(missing) - 1
            more = f', and {others} more files' if others else ''
            raise UserError(
                f'{missing[0]} is missing{more}: a pair is an image before, '
                'an image after and a label of the same name'
            )
        return [
            {
                key: osp.join(self.data_prefix[key], found[key][name])
                for key in FOLDERS
            }
            for name in sorted(names)
        ]

    def _wanted(self, found: dict[str, dict[str, str]]) -> set[str]:
        """The names of all pairs, or of those that ``ann_file`` lists."""
        known = set().union(*found.values())
        if not self.ann_file:
            if not known:
                suffix = self.img_suffix or f'one of {", ".join(_IMAGES)}'
                raise UserError(
                    f'no pair in {self.data_prefix["img_path"]}: no name '
                    f'there ends in {suffix}'
                )
            return known
        lines = fileio.list_from_file(
            self.ann_file, backend_args=self.backend_args
        )
        listed = {line.strip() for line in lines} - {''}
        if not listed:
            raise UserError(f'{self.ann_file} lists no pair')
        suffixes = self._suffixes('img_path')
        return {
            name if name in known else _stem(name, suffixes) or name
            for name in listed
        }

    def _list_files(self, key: str) -> dict[str, str]:
        """The files of a folder, by their names without the suffix."""
        folder = self.data_prefix[key]
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise UserError(
                f'folder {folder} does not exist; set data_root and '
                f'data_prefix.{key} to where the data is'
            )
        found: dict[str, str] = {}
        for file in sorted(
            fileio.list_dir_or_file(
                folder, list_dir=False, backend_args=self.backend_args
            )
        ):
            name = _stem(file, self._suffixes(key))
            if name is None or file.startswith('.'):
                continue
            if name in found:
                option = 'seg_map_suffix' if 'seg' in key else 'img_suffix'
                raise UserError(
                    f'{folder} has {found[name]} and {file} of one name; '
                    f'move one of them away, or choose with {option}'
                )
            found[name] = file
        return found

    def _suffixes(self, key: str) -> tuple[str, ...]:
        suffix = self.seg_map_suffix if 'seg' in key else self.img_suffix
        return _IMAGES if suffix is None else (suffix,)

    @staticmethod
    def _likely_file(name: str, found: dict[str, dict[str, str]]) -> str:
        """The name of a missing file, with the suffix of its partner."""
        return next((f[name] for f in found.values() if name in f), name)

    def _tiles_of(self, path: str) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) of each tile; reads the file's header."""
        with fileio.get_local_path(
            path, backend_args=self.backend_args
        ) as local:
            try:
                height, width = image_size(local)
            except UserError as error:
                raise UserError(f'{path} {error}') from error
        side = self.tile_size
        if min(width, height) < side:
            raise UserError(
                f'{path} has {height} x {width} pixels, less than '
                f'tile_size={side}; choose smaller tiles'
            )
        return [
            (top, left, side, side)
            for top in tile_starts(height, side, side)
            for left in tile_starts(width, side, side)
        ]


def _stem(file: str, suffixes: tuple[str, ...]) -> str | None:
    """A file's name without its suffix, in any case; None if it has none."""
    for suffix in suffixes:
        if file.lower().endswith(suffix.lower()):
            return file[: len(file) - len(suffix)]
    return None


def tile_starts(length: int, side: int, stride: int) -> list[int]:
    """Positions of the tiles that cover a length; the last ends with it.

    Args:
        length (int): Pixels, at least ``side``.
        side (int): Pixels of a tile.
        stride (int): From one tile to the next; the last may be nearer.
    """
    return [*range(0, length - side, stride), length - side]
