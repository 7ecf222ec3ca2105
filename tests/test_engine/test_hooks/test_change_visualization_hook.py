"""Where the pictures of a change detector's test go."""

from types import SimpleNamespace

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmssm.engine import ChangeVisualizationHook


class Infos(list):
    """Stands for a dataset."""

    get_data_info = list.__getitem__


def test_no_picture_replaces_another(tmp_path):
    names = ('a.png', 'a.png', 'a-2.png', 'b/a.jpg')
    labels = PixelData(data=torch.zeros(1, 8, 8, dtype=torch.int64))
    infos = [dict(img_path=f'/set/A/{name}') for name in names]
    samples = [
        SegDataSample(metainfo=info, gt_sem_seg=labels, pred_sem_seg=labels)
        for info in infos
    ]
    pairs = torch.zeros(len(names), 6, 8, 8, dtype=torch.uint8)
    loader = SimpleNamespace(dataset=Infos(infos))
    hook = ChangeVisualizationHook(str(tmp_path))
    hook.before_test(SimpleNamespace(test_dataloader=loader))
    hook.after_test_iter(None, 0, dict(inputs=pairs), samples)
    found = [path.relative_to(tmp_path) for path in tmp_path.rglob('*.png')]
    assert sorted(map(str, found)) == [
        'a-2-2.png',
        'a-2.png',
        'a.png',
        'b/a.png',
    ]
