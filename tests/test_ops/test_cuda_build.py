"""The extension with CUDA kernels: built, imported and used with no GPU."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
OPS = [
    'mmssm::routed_selective_scan',
    'mmssm::_routed_selective_scan_backward',
    'mmssm::state_fusion',
    'mmssm::_state_fusion_backward',
    'mmssm::tree_scan',
    'mmssm::_tree_scan_backward',
]

pytestmark = [
    pytest.mark.skipif(not shutil.which('nvcc'), reason='no nvcc'),
    pytest.mark.skipif(torch.version.cuda is None, reason='torch lacks CUDA'),
]


def hash_of_sources() -> str:
    sources = [ROOT / 'setup.py', *sorted(ROOT.glob('csrc/**/*.*'))]
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sources:
        digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope='module')
def extension() -> Path:
    """The extension for one architecture; kept while the sources stay.

    It is not installed: the package goes on with the one it has.
    """
    folder = ROOT / 'build/cuda_test'
    target = folder / hash_of_sources()
    path = target / 'mmssm/_ext.so'
    if not path.exists():
        for old in folder.glob('*'):
            if old.name != 'objects':  # these the compiler's rules keep fresh
                shutil.rmtree(old)
        env = {**os.environ, 'FORCE_CUDA': '1', 'TORCH_CUDA_ARCH_LIST': '9.0'}
        for name in ('MMSSM_WITH_OPS', 'CUDA_HOME', 'CUDA_PATH'):
            env.pop(name, None)
        made = subprocess.run(
            [sys.executable, 'setup.py', '-q', 'build_ext']
            + ['--build-lib', str(target)]
            + ['--build-temp', str(folder / 'objects')],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
        )
        said = (made.stdout + made.stderr).splitlines()
        problems = [line for line in said if 'error' in line.lower()]
        assert made.returncode == 0, '\n'.join(problems)[:4000]
    return path


@pytest.fixture(scope='module')
def package(extension, tmp_path_factory) -> Path:
    """A folder with the package and this extension in the place of its own."""
    folder = tmp_path_factory.mktemp('package')
    (folder / 'mmssm').mkdir()
    for path in (ROOT / 'mmssm').iterdir():
        if path.suffix != '.so':
            (folder / 'mmssm' / path.name).symlink_to(path)
    (folder / 'mmssm' / extension.name).symlink_to(extension)
    return folder


def run_with(package: Path, *arguments: str) -> str:
    """Run this file as a script, in a process that uses ``package``."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': str(package),
        },
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_cuda_kernels_are_registered(package):
    assert run_with(package, 'registered').split() == ['True'] * len(OPS)


def test_build_info(extension):
    from mmssm.ops import native

    found = native.build_info(extension)
    assert found.architectures == ('9.0',)
    assert found.cuda.split('.')[0] == torch.version.cuda.split('.')[0]
    assert torch.__version__.startswith(found.torch)


@pytest.mark.parametrize('device', ['meta', 'cuda'])
def test_shapes_without_a_gpu(package, device):
    """Meta tensors, and fake ones on a CUDA device, which tracing uses."""
    shapes = '(2, 9, 6) (2, 3, 9, 6) (2, 3, 9, 6, 4) (2, 5, 4, 6) (2, 4, 6)'
    assert run_with(package, 'shapes', device).strip() == shapes


def test_opcheck(package):
    run_with(package, 'opcheck')


def test_cpu_results_are_those_of_the_normal_build(package, tmp_path):
    # Not above: this file is also a script, which loads another extension.
    from mmssm.ops import native

    if not native.is_available():
        pytest.skip('no native CPU op')
    run_with(package, 'results', str(tmp_path / 'results.pt'))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        want = results()
    finally:
        torch.set_num_threads(threads)
    got = torch.load(tmp_path / 'results.pt')
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def run_setup(command: str, **env: str) -> subprocess.CompletedProcess:
    """Run setup.py up to its setup(), then ``command``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(('CUDA_', 'TORCH_CUDA', 'MMSSM_'))
    }
    script = (
        'import os, runpy, setuptools\n'
        'setuptools.setup = lambda **given: globals().update(given)\n'
        "runpy.run_path('setup.py')\n" + command
    )
    return subprocess.run(
        [sys.executable, '-c', script],
        cwd=ROOT,
        env={**kept, 'FORCE_CUDA': '1', **env},
        capture_output=True,
        text=True,
    )


def test_toolkit_is_found_and_all_its_architectures():
    if torch.cuda.is_available():
        pytest.skip('the architecture is that of the GPU')
    done = run_setup(
        "print(os.environ['CUDA_HOME'], os.environ['TORCH_CUDA_ARCH_LIST'])\n"
        'print(*ext_modules[0].sources)'
    )
    assert done.returncode == 0, done.stderr[-4000:]
    home, architectures, *sources = done.stdout.split()
    assert Path(home, 'include/cuda_runtime.h').exists()
    assert {'8.0', '9.0'} <= set(architectures.removesuffix('+PTX').split(';'))
    assert {Path(s).suffix for s in sources} == {'.cpp', '.cu'}
    one = run_setup(
        "print(os.environ['TORCH_CUDA_ARCH_LIST'])", TORCH_CUDA_ARCH_LIST='9.0'
    )
    assert one.stdout.split() == ['9.0']


def test_wrong_toolkit_is_said_in_one_line():
    done = run_setup('', CUDA_HOME='/nowhere')
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('mmssm: CUDA_HOME=/nowhere holds no include/cuda_')


def make_inputs(device: str = 'cpu', readout: bool = True) -> list:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, generator=generator).to(device)

    weights = (2, 9, 3, 2, 4)  # in 2 groups
    routes = torch.randint(-1, 9, (3, 9), generator=generator).to(device)
    parameters = (rand(3, 6) if readout else None, rand(3, 6, 5), rand(3, 6))
    return [
        rand(2, 9, 6),
        rand(2, 9, 3, 5),
        -rand(3, 6, 4).abs(),
        rand(*weights),
        rand(*weights) if readout else None,
        *parameters,
        routes,
    ]


def make_fusion_inputs() -> list:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    size = (2, 5, 4)
    return [rand(*size, 6), rand(25, 6), rand(*size), rand(6), rand(*size, 6)]


def make_tree_inputs() -> list:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    order = torch.tensor([[2, 0, 3, 1], [-1, 0, 1, 0]], dtype=torch.int32)
    tokens = [rand(2, 4, 6), rand(2, 4, 5), -rand(6).abs(), rand(2, 4)]
    return [*tokens, rand(6, 5), rand(6), order]


def ops_and_inputs() -> list:
    ops = torch.ops.mmssm
    return [
        (ops.routed_selective_scan, make_inputs()),
        (ops.state_fusion, make_fusion_inputs()),
        (ops.tree_scan, make_tree_inputs()),
    ]


def first_of(results: torch.Tensor | tuple) -> torch.Tensor:
    """The result without what else an op gives."""
    return results if torch.is_tensor(results) else results[0]


def results() -> list:
    found = []
    for op, inputs in ops_and_inputs():
        leaves = [t.requires_grad_() for t in inputs if t.is_floating_point()]
        y = first_of(op(*inputs))
        found += [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]
    return found


def print_shapes(device: str) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    scan = torch.ops.mmssm.routed_selective_scan
    with FakeTensorMode():
        for output in ('sum', 'routes', 'states'):
            inputs = make_inputs('cpu', output != 'states')
            moved = [t if t is None else t.to(device) for t in inputs]
            y, _ = scan(*moved, True, output)
            assert y.device.type == device
            print(tuple(y.shape), end=' ')
        for op, inputs in ops_and_inputs()[1:]:
            y = op(*(t.to(device) for t in inputs))
            assert y.device.type == device
            print(tuple(y.shape), end=' ')


def main(what: str, *arguments: str) -> None:
    from mmssm.ops import native

    folder = os.environ['PYTHONPATH']
    assert native.extension_path().is_relative_to(folder)
    assert native.problem() == ''
    if what == 'registered':
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
        print(*(has_kernel(op, 'CUDA') for op in OPS))
    elif what == 'shapes':
        print_shapes(*arguments)
    elif what == 'opcheck':
        for op, inputs in ops_and_inputs():
            torch.library.opcheck(
                op.default,
                inputs,
                test_utils=('test_schema', 'test_faketensor'),
            )
    else:
        torch.save(results(), *arguments)


if __name__ == '__main__':
    main(*sys.argv[1:])
