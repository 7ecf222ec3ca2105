"""The names of the pictures of a test."""

import os

import torch

from mmssm.utils.files import free_name


class PictureNames:
    """Name the picture of each image of a test.

    The name is the image's path below the folder that all images share, so
    that pictures of one name do not replace each other. If it is taken, it
    gets a number. Images without a file are numbered.

    Args:
        dataset (Dataset, optional): Tells the paths of all images. Without
            it, or if it is not mmengine's kind, folders are left out.
    """

    def __init__(
        self, dataset: torch.utils.data.Dataset | None = None
    ) -> None:
        self._root = _common_folder(dataset)
        self._taken: set[str] = set()

    def take(self, path: str | None) -> tuple[str, str]:
        """The next picture's name and its image's suffix.

        Args:
            path (str | None): The image's file, if it has one.

        Returns:
            tuple[str, str]: Both without the other; the suffix has its dot.
        """
        if path is None:
            name, suffix = str(len(self._taken)), ''
        else:
            name, suffix = os.path.splitext(
                os.path.relpath(path, self._root)
                if self._root is not None
                else os.path.basename(path)
            )
        name = free_name(name, self._taken)
        self._taken.add(name.lower())
        return name, suffix


def _common_folder(dataset: torch.utils.data.Dataset | None) -> str | None:
    """The innermost folder with all images of a dataset, if it has files."""
    if not hasattr(dataset, 'get_data_info'):
        return None  # not mmengine's kind
    folders = {
        os.path.dirname(info['img_path'])
        for info in map(dataset.get_data_info, range(len(dataset)))
        if info.get('img_path')
    }
    try:
        return os.path.commonpath(folders)
    except ValueError:  # none, or relative ones beside absolute ones
        return None
