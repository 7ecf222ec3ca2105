"""The extension is a plain library: any Python loads it, and C++ too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from mmssm.ops import native

pytestmark = [
    pytest.mark.skipif(sys.platform != 'linux', reason='Linux tools'),
    pytest.mark.skipif(not native.is_available(), reason='no native op'),
]


def symbols() -> list[str]:
    """The names that the extension defines or asks for."""
    listed = subprocess.run(
        ['nm', '-D', str(native.extension_path())],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split()[-1] for line in listed.stdout.splitlines()]


def libraries() -> list[str]:
    """The libraries that the extension itself asks for."""
    listed = subprocess.run(
        ['readelf', '-d', str(native.extension_path())],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = listed.stdout.splitlines()
    return [line.split('[')[1][:-1] for line in lines if '(NEEDED)' in line]


@pytest.mark.skipif(not shutil.which('nm'), reason='no binutils')
def test_no_symbol_of_python():
    found = symbols()
    assert 'mmssm_build_info' in found  # the list is that of the extension
    assert [name for name in found if name.startswith(('Py', '_Py'))] == []
    needed = libraries()
    assert 'libtorch_cpu.so' in needed
    assert not [name for name in needed if 'python' in name]


def test_file_name_holds_no_version():
    assert native.extension_path().name == '_ext.so'


@pytest.mark.skipif(not shutil.which('g++'), reason='no g++')
def test_in_a_program_without_python(tmp_path):
    program = tmp_path / 'without_python'
    library_paths = cpp_extension.library_paths()
    made = subprocess.run(
        ['g++', '-std=c++17', '-o', str(program)]
        + [str(Path(__file__).with_name('without_python.cpp'))]
        + [f'-I{path}' for path in cpp_extension.include_paths()]
        + [f'-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}']
        + [f'-L{path}' for path in library_paths]
        + [f'-Wl,-rpath,{path}' for path in library_paths]
        + ['-Wl,--no-as-needed', '-ltorch', '-ltorch_cpu', '-lc10', '-ldl'],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr[-4000:]
    done = subprocess.run(
        [str(program), str(native.extension_path())],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == '6 results, python loaded: 0, close: 1\n'
