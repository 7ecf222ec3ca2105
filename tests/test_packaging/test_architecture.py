"""The rules of the house in CONTRIBUTING.md, as far as they can be checked."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'mmssm'
MODULES = sorted(PACKAGE.rglob('*.py'))
# Old names of what has moved upwards; see its docstring.
OLD_NAMES = ('utils/moved.py', 'inference/__init__.py')


def stated_layers():
    """The packages in the order in which CONTRIBUTING.md has them."""
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    rule = re.search(r'Imports go down only:(.*?)\n\n?- ', text, re.DOTALL)
    chain = re.search(r'((?:`\w+`\s*→\s*)+`\w+`)', rule[1])
    return re.findall(r'`(\w+)`', chain[1])


LAYERS = stated_layers()


def layer_of(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else None


def docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, 'body', None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            yield body[0].value


def named_packages(path, source=None):
    """(package, line) of all that a module imports or names in a string."""
    tree = ast.parse(source or path.read_text())
    here = ['mmssm', *path.relative_to(PACKAGE).parent.parts]
    described = set(map(id, docstrings(tree)))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base = '.'.join([*base, *filter(None, [node.module])])
            names = [f'{base}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in described:
                names = re.findall(r'mmssm(?:\.\w+)+', node.value)
        for name in names:
            parts = name.split('.')
            if parts[0] == 'mmssm' and parts[1:2] and parts[1] in LAYERS:
                yield parts[1], node.lineno


def upward(path, source=None):
    rank = LAYERS.index(layer_of(path))
    return [
        f'{path.relative_to(ROOT)}:{line} names {package}'
        for package, line in named_packages(path, source)
        if LAYERS.index(package) > rank
    ]


def test_every_package_has_a_layer():
    packages = {
        path.name
        for path in PACKAGE.iterdir()
        if path.is_dir() and path.name[0] not in '._'
    }
    assert packages - {'inference'} == set(LAYERS)


def test_no_module_names_a_higher_layer():
    found = []
    for path in MODULES:
        if layer_of(path) in LAYERS:
            if path.relative_to(PACKAGE).as_posix() not in OLD_NAMES:
                found += upward(path)
    assert not found, '\n'.join(found)


@pytest.mark.parametrize(
    'source',
    [
        'from mmssm.apis import train',
        'from ..apis.train import train',
        'import mmssm.engine.hooks',
        'def f():\n    from .. import backbones',
        "hook = dict(type='mmssm.engine.hooks.MESAHook')",
    ],
)
def test_the_check_sees_every_kind_of_import(source):
    assert upward(PACKAGE / 'scans' / 'new.py', source)
    assert not upward(PACKAGE / 'check' / 'new.py', source)


def test_the_check_does_not_read_docstrings():
    source = '"""See :mod:`mmssm.apis`."""'
    assert not upward(PACKAGE / 'scans' / 'new.py', source)


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in MODULES}
    assert not [f for f in folders if not (f / '__init__.py').is_file()]


def public_functions(tree, prefix=''):
    for node in ast.iter_child_nodes(tree):
        name = getattr(node, 'name', '_')
        if name.startswith('_') and name != '__init__':
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node, f'{name}.')
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f'{prefix}{name}', node


def missing_types(function):
    given = function.args
    args = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    args += filter(None, [given.vararg, given.kwarg])
    names = [
        a.arg
        for a in args
        if a.annotation is None and a.arg not in ('self', 'cls')
    ]
    return names + ([] if function.returns else ['return'])


def test_public_functions_have_types():
    found = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        for name, function in public_functions(tree):
            missing = missing_types(function)
            if missing:
                place = path.relative_to(ROOT)
                found.append(f'{place}: {name} lacks {", ".join(missing)}')
    assert not found, '\n'.join(found)


def test_the_check_sees_a_missing_type():
    tree = ast.parse('class A:\n    def f(self, x: int, *, y) -> None: ...')
    ((name, function),) = public_functions(tree)
    assert (name, missing_types(function)) == ('A.f', ['y'])
