import hashlib
import http.server
import threading
from argparse import Namespace

import pytest
import torch
from mmengine.runner import CheckpointLoader
from torch import nn

from mmssm.backbones.part_loading import FILE
from mmssm.checkpoint.loaders import load_from_local
from mmssm.utils import CheckpointError


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A web server on this machine; yields its folder and address."""
    folder = tmp_path / 'site'
    folder.mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    monkeypatch.setenv('no_proxy', '*')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f'http://127.0.0.1:{server.server_port}', requests
    server.shutdown()
    server.server_close()
    thread.join()


def test_local_file_goes_through_the_safe_loader(tmp_path):
    path = tmp_path / 'bad.pth'
    path.write_bytes(b'no checkpoint')
    with pytest.raises(CheckpointError, match='not a checkpoint'):
        CheckpointLoader.load_checkpoint(str(path))


def test_other_checkpoints_pass_unchanged(tmp_path):
    saved = dict(
        meta=dict(epoch=3),
        state_dict={
            'backbone.stages.0.blocks.0.mixer.x_proj_weight': torch.ones(1)
        },
        optimizer=dict(state={}, param_groups=[]),
    )
    torch.save(saved, tmp_path / 'epoch_3.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_3.pth'))
    assert loaded == saved


def test_a_models_backbone_is_told_the_file(tmp_path):
    """In PyTorch's metadata, which keep what they had."""
    net = nn.ModuleDict(
        dict(backbone=nn.Linear(1, 1), decode_head=nn.BatchNorm1d(1))
    )
    path = str(tmp_path / 'a.pth')
    for saved in (
        dict(meta={}, state_dict=net.state_dict()),
        net.state_dict(),
        dict(net.state_dict()),
    ):
        torch.save(saved, path)
        loaded = CheckpointLoader.load_checkpoint(path)
        metadata = loaded.get('state_dict', loaded)._metadata
        note = metadata['backbone'].pop(FILE)
        assert note == (path, ('decode_head',))
        if type(saved) is not dict or 'meta' in saved:
            assert metadata == net.state_dict()._metadata
        torch.save(CheckpointLoader.load_checkpoint(path), path)
        load_from_local(path, weights_only=True)  # it may be saved again
    for odd in ({0: torch.ones(1)}, [torch.ones(1)], dict(state_dict=None)):
        torch.save(odd, path)
        assert CheckpointLoader.load_checkpoint(path) == odd


@pytest.fixture
def whole_pickle(tmp_path):
    """A file of somebody else's project, with an object of Python's."""
    saved = dict(state_dict=dict(a=torch.ones(2)), args=Namespace(lr=0.1))
    torch.save(saved, tmp_path / 'theirs.pth')
    return str(tmp_path / 'theirs.pth')


def test_pickled_objects_are_refused_by_default(whole_pickle):
    with pytest.raises(CheckpointError, match='argparse.Namespace'):
        CheckpointLoader.load_checkpoint(whole_pickle)


def test_pytorchs_variable_is_honored(whole_pickle, monkeypatch):
    """mmengine's own loader calls torch.load, which reads the variable."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    mmengines_own = torch.load(whole_pickle, map_location='cpu')
    loaded = CheckpointLoader.load_checkpoint(whole_pickle, 'cpu')
    assert loaded['args'] == mmengines_own['args'] == Namespace(lr=0.1)
    assert torch.equal(loaded['state_dict']['a'], torch.ones(2))


def test_weights_only_is_honored(whole_pickle, monkeypatch):
    loaded = load_from_local(whole_pickle, weights_only=False)
    assert loaded['args'] == Namespace(lr=0.1)
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    # An explicit argument is stronger than the variable.
    with pytest.raises(CheckpointError, match='argparse.Namespace'):
        load_from_local(whole_pickle, weights_only=True)


def test_missing_file_is_the_error_that_mmengine_raises(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        CheckpointLoader.load_checkpoint(str(tmp_path / 'none.pth'))
    assert isinstance(caught.value, CheckpointError)
    assert 'does not exist; check the path' in str(caught.value)


def test_download_happens_once(site):
    folder, address, requests = site
    torch.save(dict(state_dict=dict(a=torch.ones(2))), folder / 'x.pth')
    for _ in range(2):
        loaded = CheckpointLoader.load_checkpoint(f'{address}/x.pth')
        assert loaded['state_dict']['a'].tolist() == [1, 1]
    assert requests == ['/x.pth']


def test_download_fails(site):
    _, address, _ = site
    with pytest.raises(CheckpointError, match='cannot download .*none.pth'):
        CheckpointLoader.load_checkpoint(f'{address}/none.pth')


def test_sha256_in_the_name(site):
    folder, address, _ = site
    torch.save(dict(a=torch.ones(2)), folder / 'x.pth')
    # The digest must hold a letter; all digits could be a date.
    content = (folder / 'x.pth').read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:12]
    assert any(c.isalpha() for c in digest), 'save other content'
    good, bad = f'x-{digest}.pth', 'x-0123abcd.pth'
    (folder / good).write_bytes(content)
    (folder / bad).write_bytes(content)

    assert 'a' in CheckpointLoader.load_checkpoint(f'{address}/{good}')
    with pytest.raises(CheckpointError, match=f'sha256 begins {digest[:8]}'):
        CheckpointLoader.load_checkpoint(f'{address}/{bad}')


@pytest.mark.parametrize('name', ['x-20230102.pth', 'iter_100.pth'])
def test_dates_are_no_digests(site, name):
    folder, address, _ = site
    torch.save(dict(a=1), folder / name)
    assert CheckpointLoader.load_checkpoint(f'{address}/{name}') == dict(a=1)


def test_unknown_model_name():
    with pytest.raises(CheckpointError, match='not a known model name'):
        CheckpointLoader.load_checkpoint('torchvision://resnet5000')
