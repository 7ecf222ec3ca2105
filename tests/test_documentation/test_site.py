"""The site of docs/ is built without a warning and has what is public."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_site(tmp_path):
    command = [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going']
    done = subprocess.run(
        [*command, str(ROOT / 'docs'), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for page in (ROOT / 'docs').glob('*.md'):
        assert (tmp_path / page.name).with_suffix('.html').is_file()
    listed = (ROOT / 'docs' / 'reference.md').read_text()
    modules = re.findall(r'automodule:: (\S+)', listed)
    assert len(modules) > 5
    reference = (tmp_path / 'reference.html').read_text()
    for module in map(importlib.import_module, modules):
        for name in module.__all__:
            if callable(getattr(module, name)):  # constants have no docstring
                assert re.search(rf'id="mmssm[\w.]*\.{name}"', reference), name
