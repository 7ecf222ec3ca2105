from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmssm.apis.images import UnreadableImage, read_image


def test_file_that_may_not_be_read(monkeypatch):
    def refuse(path):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'read_bytes', refuse)
    with pytest.raises(UnreadableImage, match='Permission denied'):
        read_image('a.png')


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'I;16', 'P'])
def test_kinds_of_images(tmp_path, mode):
    pixels = np.full((5, 7), 200 if mode != 'I;16' else 200 * 256)
    kind = np.uint16 if mode == 'I;16' else np.uint8
    source = Image.fromarray(pixels.astype(kind))
    (source if mode == 'I;16' else source.convert(mode)).save(
        tmp_path / 'a.png'
    )
    assert (read_image(tmp_path / 'a.png') == np.full((5, 7, 3), 200)).all()


def test_depths_that_can_be_read(tmp_path):
    pixels = np.full((5, 7), 0.5, dtype=np.float32)
    Image.fromarray(pixels).save(tmp_path / 'a.tif')
    with pytest.raises(UnreadableImage, match='takes 8 and 16 bits'):
        read_image(tmp_path / 'a.tif')


def test_channels_are_those_of_opencv(tmp_path):
    Image.new('RGB', (7, 5), (200, 100, 0)).save(tmp_path / 'a.png')
    assert (read_image(tmp_path / 'a.png') == (0, 100, 200)).all()
