"""The site of docs/ is built without a warning and has what is public."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / 'docs'


def test_site(tmp_path):
    command = [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going']
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pages = [page.relative_to(DOCS) for page in DOCS.rglob('*.md')]
    assert len(pages) > 4
    for page in pages:
        assert (tmp_path / page).with_suffix('.html').is_file()
    listed = (DOCS / 'reference.md').read_text()
    modules = re.findall(r'automodule:: (\S+)', listed)
    assert len(modules) > 5
    reference = (tmp_path / 'reference.html').read_text()
    for module in map(importlib.import_module, modules):
        for name in module.__all__:
            if callable(getattr(module, name)):  # constants have no docstring
                assert re.search(rf'id="mmssm[\w.]*\.{name}"', reference), name
