import argparse

import pytest

from mmssm.apis.cli import add_common_options


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(prog='train.py')
    add_common_options(parser)
    return parser


def test_options(parser):
    args = parser.parse_args(
        ['--cfg-options', 'a.b=1', 'c=[1,2.5]', 'd=text', '--work-dir', 'x y']
    )
    assert args.cfg_options == {'a.b': 1, 'c': [1, 2.5], 'd': 'text'}
    assert args.work_dir == 'x y'
    assert args.launcher == 'none' and not args.unsafe_load


def test_torch_distributed_launch_may_name_the_rank(parser):
    assert parser.parse_args(['--local-rank=1']).launcher == 'none'
    assert '--local-rank' not in parser.format_help()


@pytest.mark.parametrize('value', ['a', 'a=[1,2', 'a=[dict(b=1,c=2)]'])
def test_option_that_cannot_be_read(parser, capsys, value):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(['--cfg-options', value])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('train.py: error: --cfg-options: cannot read')
