import numpy as np
import pytest
from PIL import Image

from mmssm.datasets.headers import image_size, is_georeferenced, read_tiff_tags
from mmssm.utils import UserError


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'bmp', 'webp'])
def test_size(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    Image.new('RGB', (7, 5)).save(path)
    assert image_size(path) == (5, 7)
    assert not is_georeferenced(path)


def test_size_of_a_tiff_file_that_pillow_does_not_decode(tmp_path):
    import cv2

    path = tmp_path / 'a.tif'
    cv2.imwrite(str(path), np.zeros((5, 7, 3), np.float32))
    with pytest.raises(OSError):
        Image.open(path)
    assert image_size(path) == (5, 7)


def test_files_that_are_no_images(tmp_path):
    for name, content in (('a', b''), ('b', b'II*\0'), ('c', b'text')):
        (tmp_path / name).write_bytes(content)
        assert read_tiff_tags(tmp_path / name) == {}
        with pytest.raises(UserError, match='^is no image that can be read'):
            image_size(tmp_path / name)
    assert not is_georeferenced(tmp_path / 'none')


def test_too_many_pixels(tmp_path, monkeypatch):
    Image.new('RGB', (40, 30)).save(tmp_path / 'a.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 500)
    with pytest.raises(UserError, match='^has too many pixels .* cut it'):
        image_size(tmp_path / 'a.png')
