"""The machine, the versions, and whether the extension can run on it."""

import os
import shutil
import subprocess
import sys
from importlib import metadata

from mmssm.analysis.benchmark.measure import machine
from mmssm.check.environment import environment, problems

from ..steps import find_tool
from .program import parse_args, save

TOOLS = ('ncu', 'compute-sanitizer', 'nvcc')
# Beyond what the check tells; the last two have kernels to compare with.
PACKAGES = (
    'numpy',
    'pytest',
    'pytest-xdist',
    'timm',
    'triton',
    'mamba-ssm',
    'selective-scan',
)


def main() -> None:
    """Ends with a message where there is nothing to measure."""
    args = parse_args()
    found = problems([args.device.type])
    if found:
        sys.exit(found[0])
    if args.device.type == 'cuda' and shutil.which('nvidia-smi'):
        subprocess.run(['nvidia-smi'], check=False)
    facts = {
        'device': machine(args.device).split(',')[0],
        **environment(),
        'cores': str(os.cpu_count()),
        'tools': ', '.join(filter(_is_there, TOOLS)) or 'none',
        **{name: _version(name) for name in PACKAGES},
    }
    for name, fact in facts.items():
        print(f'{name}: {fact}')
    save(args.json, facts)


def _is_there(tool: str) -> bool:
    return os.path.isabs(find_tool(tool))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return 'not installed'


if __name__ == '__main__':
    main()
