from pathlib import Path

import pytest

TOY = Path(__file__).parents[1] / 'data' / 'toy'


@pytest.fixture
def toy_config(tmp_path, monkeypatch):
    """The toy task's config; the work happens in a folder of its own."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.chdir(tmp_path)
    return str(TOY / 'config.py')
