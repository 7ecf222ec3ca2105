"""What docs/change_detection.md names exists, and its configs are read."""

import re
from pathlib import Path

import yaml
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'change_detection.md').read_text()


def configs(tmp_path):
    """The page's configs, as a user saves them in a folder of his own."""
    blocks = re.findall(r'```python\n(.*?)```', PAGE, re.S)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        path = tmp_path / 'my' / f'{number}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.replace("'../configs", f"'{ROOT}/configs"))
        yield Config.fromfile(path)


def test_configs_read_other_data(tmp_path):
    tested, trained = configs(tmp_path)
    dataset = tested.test_dataloader.dataset
    assert dataset.data_root == '/data/SYSU'
    assert dataset.data_prefix.seg_map_path == 'test/GT'
    assert dataset.ann_file == 'test_set.txt'
    for split in ('train', 'val', 'test'):
        dataset = trained[f'{split}_dataloader'].dataset
        assert dataset.data_root == 'data/my_pairs'
        assert dataset.data_prefix.img_path.endswith('/T1')
    assert trained.train_dataloader.dataset.tile_size == 256


def test_files_and_models_exist():
    files = re.findall(r'(?:tools|configs)/[\w/.+-]+\.(?:py|sh)', PAGE)
    assert len(files) > 6
    for file in files:
        assert (ROOT / file).is_file(), file
    metafile = ROOT / 'configs' / 'change_mamba' / 'metafile.yml'
    models = {
        m['Name'] for m in yaml.safe_load(metafile.read_text())['Models']
    }
    named = re.findall(r'changemamba_vmamba\S+?cd(?:-plus)?\b', PAGE)
    assert len(named) > 4 and set(named) <= models
