"""Count the parameters and FLOPs of a config's model for one image."""

import argparse
import json
import sys
from contextlib import redirect_stdout

from mmssm.analysis.flops import CONVENTIONS
from mmssm.apis.cli import run_tool
from mmssm.apis.flops import Complexity, count_config
from mmssm.utils.config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='size of the image (default: for classification the test size, '
        'else 224 224; for detection 800 1280; for segmentation with crops of '
        '512, 512 2048; for change detection one crop)',
    )
    parser.add_argument(
        '--json', action='store_true', help='print one JSON object'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Only the result goes to stdout; the libraries' logs go to stderr.
    with redirect_stdout(sys.stderr):
        cfg = load_config(args.config)
        result = count_config(cfg, args.shape and tuple(args.shape))
    print(as_json(result) if args.json else as_text(args.config, result))


def as_json(result: Complexity) -> str:
    fields = dict(
        params=result.params,
        flops=result.flops,
        macs=result.macs,
        shape=result.shape,
        convention=CONVENTIONS['flops'],
    )
    if result.proposals is not None:
        fields['proposals'] = result.proposals
    return json.dumps(fields)


def as_text(config: str, result: Complexity) -> str:
    height, width = result.shape
    lines = [
        f'config      {config}',
        f'input       {result.channels} x {height} x {width}',
        f'parameters  {result.params / 1e6:.2f} M  ({result.params:,})',
        f'FLOPs       {result.flops / 1e9:.2f} G  ({CONVENTIONS["flops"]})',
        f'MACs        {result.macs / 1e9:.2f} G  ({CONVENTIONS["macs"]})',
    ]
    if result.proposals is not None:
        lines.append(f'proposals   {result.proposals} to the box head')
    lines.append('FLOPs by operator:')
    lines += [
        f'  {operator:<20}{count / 1e9:>10.3f} G'
        for operator, count in result.flops_by_operator.items()
    ]
    return '\n'.join(lines)


if __name__ == '__main__':
    run_tool(main)
