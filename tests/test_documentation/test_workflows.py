"""The workflows of GitHub run what the repository has."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))


def commands(workflow):
    for job in workflow['jobs'].values():
        yield from (step['run'] for step in job['steps'] if 'run' in step)


def test_there_is_one_for_each_purpose():
    names = {path.stem for path in WORKFLOWS}
    assert names == {'lint', 'test', 'wheel', 'docs'}


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_its_commands_name_files_that_exist(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow['name'] == path.stem
    found = 0
    for command in commands(workflow):
        names = re.findall(r'bash (\S+)', command)
        names += re.findall(r'-r (\S+\.txt)', command)
        names += re.findall(r'sphinx-build .*?(docs) ', command)
        found += len(names)
        assert not [name for name in names if not (ROOT / name).exists()]
    assert found
