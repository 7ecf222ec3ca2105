import argparse

import pytest
from mmengine.config import DictAction

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


@pytest.mark.parametrize(
    'text, value',
    [
        ('my det/epoch 1.pth', 'my det/epoch 1.pth'),
        ("'my det/a.pth'", 'my det/a.pth'),
        ('"[a b, c d]"', ['a b', 'c d']),
        ('[(1, 2.5), [ a b ,None], "c d"]', [(1, 2.5), ['a b', None], 'c d']),
        ('( 1, )', (1,)),
        ('a b, true ,1e-4', ['a b', True, 1e-4]),
        ('[]', []),
        ('()', ()),
        ('', ''),
        (' 3 ', 3),
        ('[1],(2,)', [[1], (2,)]),
        ('(1),(2)', [(1,), (2,)]),
        ('f(x)', 'f(x)'),
        ('(a)/(b)', '(a)/(b)'),
        ('a=b', 'a=b'),
    ],
)
def test_values(parser, text, value):
    args = parser.parse_args(['--cfg-options', f'key={text}'])
    assert args.cfg_options == {'key': value}


@pytest.mark.parametrize(
    'text',
    ['1,2,3', '[a,b,c]', '[(1,2,3),[a,b],c]', "['a','b']", '[1,[2]]', 'None'],
)
def test_values_without_spaces_are_read_as_mmengine_does(parser, text):
    args = parser.parse_args(['--cfg-options', f'key={text}'])
    assert args.cfg_options['key'] == DictAction._parse_iterable(text)


def test_torch_distributed_launch_may_name_the_rank(parser):
    assert parser.parse_args(['--local-rank=1']).launcher == 'none'
    assert '--local-rank' not in parser.format_help()


@pytest.mark.parametrize(
    'value', ['a', 'a=[1,2', 'a=[1)]', 'a=1],[2', 'a=[dict(b=1,c=2)]']
)
def test_option_that_cannot_be_read(parser, capsys, value):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(['--cfg-options', value])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('train.py: error: --cfg-options: cannot read')
