"""Where the pictures of a test go, and what they show."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement
from PIL import Image

from mmssm.apis import evaluate
from mmssm.apis.picture_hook import PictureHook
from mmssm.apis.tasks import find_task

SIZE = 20, 10  # width and height
RED = (250, 0, 0)


class Infos(list):
    """Stands for a dataset."""

    get_data_info = list.__getitem__


def draw_all(folder, paths, batch=None):
    """The pictures' paths in a folder, and the images that were drawn."""
    drawn = []
    hook = PictureHook(folder, lambda *args: drawn.append(args[1:]))
    infos = [dict(img_path=path) for path in paths]
    loader = SimpleNamespace(dataset=Infos(infos))
    runner = SimpleNamespace(test_dataloader=loader, visualizer=None)
    hook.before_test(runner)
    samples = [BaseDataElement(metainfo=info) for info in infos]
    hook.after_test_iter(runner, 0, batch, samples)
    names = [str(Path(path).relative_to(folder)) for _, _, path in drawn]
    return names, [image for image, _, _ in drawn]


def save(path, color=RED):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', SIZE, color).save(path)
    return str(path)


def test_pictures_of_one_name_are_kept_apart(tmp_path):
    names = ('a/x.jpg', 'b/x.jpg', 'b/c/x.png', 'b/c/x.JPEG', 'b/c/x.bmp')
    paths = [save(tmp_path / 'set' / name) for name in names]
    found, images = draw_all(tmp_path / 'out', [*paths, paths[0]])
    assert found == [
        'a/x.jpg',
        'b/x.jpg',
        'b/c/x.png',
        'b/c/x-2.jpg',
        'b/c/x-3.png',
        'a/x-2.jpg',
    ]
    # The colors of the file, whatever the pipeline makes of them.
    assert (images[2] == RED).all() and images[2].shape == (*SIZE[::-1], 3)


def test_one_folder_needs_no_folders(tmp_path):
    paths = [save(tmp_path / f'{i}.png') for i in range(2)]
    assert draw_all(tmp_path / 'out', paths)[0] == ['0.png', '1.png']


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('views', [False, True])
def test_images_without_files_are_numbered(tmp_path, channels, views):
    batch = torch.zeros(2, channels, *SIZE[::-1], dtype=torch.uint8)
    batch[1] = 7
    inputs = [batch, batch + 1] if views else batch
    found, images = draw_all(
        tmp_path / 'out', [None, None], dict(inputs=inputs)
    )
    assert found == ['0.png', '1.png']
    assert images[1].shape == (*SIZE[::-1], 3) and (images[1] == 7).all()


def test_pictures_of_pairs_are_our_own(tmp_path):
    loader = dict(type='mmssm.datasets.LoadImagePair')
    cfg = Config(
        dict(
            default_scope='mmseg',
            test_dataloader=dict(dataset=dict(type='A', pipeline=[loader])),
        )
    )
    hook = find_task(cfg).picture_hook(cfg, tmp_path)
    assert type(hook).__name__ == 'ChangeVisualizationHook'
    assert hook.out_dir == tmp_path


@pytest.mark.parametrize('tta', [False, True])
def test_pictures_of_each_task(
    mini_tasks, untrained, tmp_path, monkeypatch, tta
):
    """Also with a config that names no visualizer."""
    monkeypatch.chdir(mini_tasks[0])
    for scope, model in untrained.items():
        folder = tmp_path / scope
        evaluate(
            *model,
            work_dir=str(tmp_path / 'work'),
            show_dir=str(folder),
            tta=tta,
            options={
                'test_dataloader.dataset.indices': 3,
                'visualizer': None,
            },
        )
        cfg = Config.fromfile(model[0])
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        infos = [dataset.get_data_info(index) for index in range(3)]
        names = {Path(info['img_path']).stem for info in infos}
        files = [path for path in folder.rglob('*') if path.is_file()]
        assert {path.stem for path in files} == names and len(files) == 3
        image = Image.open(infos[0]['img_path'])
        for file in files:
            picture = Image.open(file)
            # Truth and prediction side by side; a classifier writes both.
            views = 1 if scope == 'mmpretrain' else 2
            assert picture.size == (views * image.width, image.height)
            assert np.ptp(np.array(picture)) > 100
