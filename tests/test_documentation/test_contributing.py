"""CONTRIBUTING.md's examples work as they stand, in a copy of the package."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'CONTRIBUTING.md').read_text()
BUILD = """
import json, sys, torch, mmssm
from mmengine.registry import MODELS
print(mmssm.__file__)
for backbone in json.loads(sys.argv[1]):
    (out,) = MODELS.build(backbone)(torch.rand(1, 3, 64, 96))
    print(backbone['type'], list(out.shape), bool(out.isfinite().all()))
"""


def blocks(language):
    """Code blocks of a language, less their indentation."""
    fenced = rf'^( *)```{language}\n(.*?)^\1```$'
    found = re.findall(fenced, PAGE, re.M | re.S)
    return [textwrap.dedent(code) for _, code in found]


def inline(pattern):
    """What stands in backticks and matches all of a pattern."""
    text = re.sub(r'^ *```.*?^ *```$', '', PAGE, flags=re.M | re.S)
    code = [' '.join(c.split()) for c in re.findall('`([^`]+)`', text)]
    return [c for c in code if re.fullmatch(pattern, c)]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Run Python with a copy of mmssm that has the page's route."""
    folder = tmp_path_factory.mktemp('contribution')
    shutil.copytree(
        ROOT / 'mmssm',
        folder / 'mmssm',
        symlinks=True,
        ignore=shutil.ignore_patterns('__pycache__'),
    )
    (route,) = (code for code in blocks('python') if '@register' in code)
    scans = folder / 'mmssm' / 'scans'
    (scans / 'diagonal.py').write_text(route)
    with (scans / '__init__.py').open('a') as file:
        file.write('from . import diagonal\n')

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=folder,
            env=dict(os.environ, PYTHONPATH=str(folder)),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = folder
    return run


def test_route_passes_the_tests_of_routes(run):
    tests = ROOT / 'tests' / 'test_scans' / 'test_route.py'
    cache = ('-p', 'no:cacheprovider')
    out = run('-m', 'pytest', '-v', *cache, tests)
    passed = re.findall(r'\[(diagonal.*)\] PASSED', out)
    assert sorted(passed) == ['diagonal', 'diagonal'] + ['diagonal_flip'] * 2


def test_route_is_drawn_and_scored(run):
    (command,) = inline(r'python tools/\S+vis_routes.py .*')
    _, tool, *arguments = command.split()
    assert 'diagonal' in arguments
    assert run(ROOT / tool, *arguments, '--out', 'r.svg') == 'r.svg\n'
    assert '<!-- diagonal -->' in (run.folder / 'r.svg').read_text()
    (call,) = inline(r'mmssm\.scans\.structural_distortion\(.*\)')
    code = f"import mmssm; name, height, width = 'diagonal', 3, 4; {call}"
    run('-c', code)


def test_backbones_scan_along_it(run):
    (config,) = (code for code in blocks('python') if 'backbone =' in code)
    # Each assignment is a config of its own.
    backbones = []
    for statement in ast.parse(config).body:
        values = {}
        exec(ast.unparse(statement), values)
        backbones.append(values['backbone'])
    assert all('diagonal' in str(backbone) for backbone in backbones)
    copy, *results = run('-c', BUILD, json.dumps(backbones)).splitlines()
    assert Path(copy).is_relative_to(run.folder)
    assert results == [
        'VMamba [1, 768, 2, 3] True',
        'LocalVMamba [1, 768, 2, 3] True',
    ]


def test_custom_imports_can_be_imported():
    (line,) = inline('custom_imports = .*')
    cfg = Config.fromstring(line, '.py')
    assert cfg.custom_imports.imports == ['mmssm']


FILES = inline(r'(mmssm|csrc|configs|docs|tests|tools)/[^ …]*')


@pytest.mark.parametrize('name', FILES)
def test_files_exist(name):
    """With any name in place of ``<family>``."""
    assert list(ROOT.glob(re.sub('<.*?>', '*', name)))


@pytest.mark.parametrize('name', inline(r'mmssm(\.\w+)+'))
def test_names_exist(name):
    module, attribute = name.rsplit('.', 1)
    assert hasattr(importlib.import_module(module), attribute)


SCRIPTS = re.findall(r'^bash (\S+)', '\n'.join(blocks('shell')), re.M)


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_explain_themselves(script):
    done = subprocess.run(
        ['bash', ROOT / script, '--help'],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(f'Usage: bash {script}')


def test_examples_are_found():
    assert len(FILES) > 20 and len(SCRIPTS) == 2
    assert len(blocks('python')) == 2
