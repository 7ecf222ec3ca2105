"""Wheel and source distribution, built from what git tracks and installed.

They are built without native code; what is built, and for which platform, is
another matter than what is packed.
"""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[2]
NAME = 'vmamba-tiny-s1l8_8xb128_in1k'
# The build's own interface, which pip calls for wheels alone.
BUILD_SDIST = (
    'import sys; from setuptools.build_meta import build_sdist; '
    'build_sdist(sys.argv[1])'
)
ASK = f"""
import importlib, json, pkgutil, mmssm
modules = ['mmssm']
for module in pkgutil.walk_packages(mmssm.__path__, 'mmssm.'):
    if not module.name.endswith('__main__'):  # which would run
        importlib.import_module(module.name)
    modules.append(module.name)

from mmengine import Config
from mmpretrain import list_models
from mmssm.apis import find_model
config, weights = find_model({NAME!r})
kind = Config.fromfile(config).model.backbone.type
print(json.dumps(dict(
    path=mmssm.__file__, modules=modules, models=list_models(),
    config=config, weights=weights, kind=kind,
)))
"""


def tracked():
    """Files that git tracks and that are there; links stand for folders."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    return {
        name
        for name in listed.split('\0')
        if name and os.path.lexists(ROOT / name)
    }


def run(*command, cwd, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(os.environ, MMSSM_WITH_OPS='0', **environment),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip_wheel(source, out):
    """The wheel that pip builds from a folder or a source distribution."""
    options = ['--no-build-isolation', '--no-deps', '--no-cache-dir']
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    run(*pip, 'wheel', *options, '--wheel-dir', out, source, cwd=out.parent)
    (wheel,) = out.glob('*.whl')
    return wheel


class Built:
    """What is built from a copy of the repository, and the copy."""

    def __init__(self, folder):
        self.source = folder / 'source'
        for name in tracked():
            target = self.source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                target.symlink_to(os.readlink(ROOT / name))
            else:
                target.write_bytes((ROOT / name).read_bytes())
        git = ['git', '-c', 'core.excludesFile=']
        run(*git, 'init', '--quiet', cwd=self.source)
        run(*git, 'add', '--all', cwd=self.source)
        self.wheel = pip_wheel(self.source, folder / 'wheel')
        sdist = folder / 'sdist'
        sdist.mkdir()
        run(sys.executable, '-c', BUILD_SDIST, sdist, cwd=self.source)
        (self.sdist,) = sdist.glob('*.tar.gz')
        self.wheel_of_sdist = pip_wheel(self.sdist, folder / 'again')
        self.status = run(
            *git, 'status', '--porcelain', '--untracked-files', cwd=self.source
        )


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    return Built(tmp_path_factory.mktemp('distributions'))


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    """An empty folder that the wheel, and nothing else, is installed into."""
    folder = tmp_path_factory.mktemp('installed')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    options = ['--no-deps', '--no-index', '--target', folder]
    run(*pip, 'install', *options, built.wheel, cwd=folder)
    return folder


@pytest.fixture(scope='module')
def answers(installed, tmp_path_factory):
    """What the installed package says from another folder."""
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    python = (sys.executable, '-c', ASK)
    out = run(*python, cwd=elsewhere, PYTHONPATH=str(installed))
    return json.loads(out.splitlines()[-1])


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_holds_the_package_and_no_more(built):
    files = tracked()
    want = {
        name: name
        for name in files
        if name.startswith('mmssm/') and '/.mim/' not in name
    }
    want |= {
        f'mmssm/.mim/{name}': name
        for name in files
        if name.startswith(('configs/', 'tools/')) or name == 'model-index.yml'
    }
    got = contents(built.wheel)
    packed = {name for name in got if '.dist-info/' not in name}
    assert packed == set(want)
    assert 'mmssm/py.typed' in packed
    for name, source in want.items():
        assert got[name] == (ROOT / source).read_bytes(), name


def test_sdist_holds_what_a_build_needs(built):
    files = tracked()
    with tarfile.open(built.sdist) as archive:
        members = [m for m in archive.getmembers() if not m.isdir()]
    assert all(member.isfile() for member in members)  # no links
    got = {member.name.partition('/')[2] for member in members}
    parts = ('csrc/', 'configs/', 'tools/', 'requirements/')
    single = {'setup.py', 'pyproject.toml', 'model-index.yml', 'LICENSE'}
    want = {n for n in files if n.startswith(parts) or n in single}
    want |= {n for n in files if n.startswith('mmssm/')}
    want -= {n for n in want if (ROOT / n).is_symlink()}
    assert want <= got, want - got
    made = {'PKG-INFO', 'setup.cfg'}
    extra = {
        name
        for name in got - files - made
        if not name.startswith(('mmssm.egg-info/', 'mmssm/.mim/'))
    }
    assert not extra
    assert not [n for n in got if n.startswith(('tests/', 'benchmarks/'))]


def test_wheel_of_the_sdist_is_the_same(built):
    one, other = contents(built.wheel), contents(built.wheel_of_sdist)
    assert built.wheel.name == built.wheel_of_sdist.name
    assert set(one) == set(other)
    assert not [name for name in one if one[name] != other[name]]


def test_building_leaves_the_repository_clean(built):
    assert built.status.splitlines() == [
        f'A  {name}' for name in sorted(tracked())
    ]


def test_metadata(built):
    version = {}
    exec((ROOT / 'mmssm/version.py').read_text(), version)
    (text,) = (
        content.decode()
        for name, content in contents(built.wheel).items()
        if name.endswith('.dist-info/METADATA')
    )
    metadata = message_from_string(text)
    assert metadata['Name'] == 'mmssm'
    assert metadata['Version'] == version['__version__']
    assert metadata['License-Expression'] == 'Apache-2.0'
    assert metadata.get_payload().startswith('# mmssm')
    needed = metadata.get_all('Requires-Dist')
    assert sorted(metadata.get_all('Provides-Extra')) == [
        'docs',
        'geotiff',
        'mminstall',
        'tests',
    ]
    for extra in metadata.get_all('Provides-Extra'):
        names = required(needed, f'extra == "{extra}"')
        assert names == lines(f'requirements/{extra}.txt'), extra
    assert required(needed, '') == lines('requirements/runtime.txt')


def required(needed, marker):
    """Requirements that hold under exactly this condition."""
    parts = (requirement.partition('; ') for requirement in needed)
    return {name for name, _, condition in parts if condition == marker}


def lines(name):
    text = (ROOT / name).read_text().splitlines()
    return {line for line in text if line and not line.startswith('#')}


def test_every_module_can_be_imported(answers, installed):
    assert Path(answers['path']) == installed / 'mmssm' / '__init__.py'
    want = [
        name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
        for name in tracked()
        if name.startswith('mmssm/') and name.endswith('.py')
    ]
    assert sorted(answers['modules']) == sorted(want)


def test_models_have_names(answers, installed):
    config = installed / f'mmssm/.mim/configs/vmamba/{NAME}.py'
    assert Path(answers['config']) == config
    assert answers['weights'].startswith('https://')
    assert answers['kind'] == 'VMamba'
    want = {
        model['Name'].lower()
        for page in ROOT.glob('configs/*/metafile.yml')
        for model in yaml.safe_load(page.read_text())['Models']
    }
    assert len(want) > 60 and want <= set(answers['models'])


@pytest.mark.parametrize(
    'tool, arguments',
    [
        ('train', ['--cfg-options', 'optim_wrapper.type=OptimWrapper']),
        ('test', ['weights.pth']),
    ],
)
def test_tools_run_from_the_package(installed, tmp_path, tool, arguments):
    """As mim runs them; there is no ImageNet-1k here, and they say so."""
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    mim = installed / 'mmssm' / '.mim'
    command = [mim / f'tools/{tool}.py', mim / f'configs/vmamba/{NAME}.py']
    done = subprocess.run(
        [sys.executable, *command, *arguments, '--launcher', 'none'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(installed)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2, done.stderr
    assert f'{tool}.py: error: ' in done.stderr
    assert 'data/imagenet' in done.stderr
    assert 'ImageNet-1k: train/<class>/*.JPEG' in done.stderr
