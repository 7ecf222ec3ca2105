"""Convert an original author's checkpoint to mmssm's names.

Family and arch are recognized from the file. The result is a file in
mmpretrain's style, {'meta', 'state_dict'}, with a classifier, or with a whole
detector or segmentor if the original file has one.
"""

import argparse

from mmssm.apis import convert
from mmssm.apis.cli import add_unsafe_load, run_tool
from mmssm.checkpoint import allow_unsafe_loading


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', metavar='SRC', help="the original's file")
    parser.add_argument('dst', metavar='DST', help='the file to write')
    add_unsafe_load(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    allow_unsafe_loading(args.unsafe_load)
    report(convert(args.src, args.dst))
    print(f'written: {args.dst}')


def report(converted: dict) -> None:
    """Print what the file contains."""
    found = converted['meta']['mmssm']
    state_dict = converted['state_dict']
    parts = sorted({key.split('.', 1)[0] for key in state_dict})
    print(f'family: {found["family"]}')
    if isinstance(found['arch'], str):
        print(f'arch: {found["arch"]}')
    else:  # ready to be pasted into a config
        print(f'arch=dict({", ".join(_fields(found["arch"]))})')
    print(f'container: {found["container"]}')
    print(f'tensors: {len(state_dict)} ({", ".join(parts)})')


def _fields(arch: dict) -> list:
    return [f'{key}={value!r}' for key, value in arch.items()]


if __name__ == '__main__':
    run_tool(main)
