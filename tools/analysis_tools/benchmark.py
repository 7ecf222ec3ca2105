"""Compare time and memory, in interleaved rounds.

`op` compares the native routed scan with other implementations, `fusion` does
so for the state fusion and `tree` for the tree scan; `model` compares
backbones.
"""

import argparse
import shlex
import sys

import torch

from mmssm.analysis.benchmark.measure import prepare
from mmssm.analysis.benchmark.model import (
    BESIDE,
    ORIGINAL,
    backbones,
    bench_model,
    with_optimized,
)
from mmssm.analysis.benchmark.routed_selective_scan import bench_op
from mmssm.analysis.benchmark.state_fusion import bench_fusion
from mmssm.analysis.benchmark.tree_scan import bench_tree
from mmssm.apis.cli import run_tool
from mmssm.utils import UserError
from mmssm.visualization.benchmark import draw_times
from mmssm.visualization.figures import check_figure_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    modes = parser.add_subparsers(dest='mode', required=True)
    op = modes.add_parser(
        'op',
        help='the routed scan and its alternatives',
        description="The routed scan at VMamba's sizes: mmssm's native op, "
        "its PyTorch reference, and the original code's gather, 1-D scan and "
        "merge, with mmssm's 1-D scan and, on a GPU and if installed, those "
        'of mamba-ssm and VMamba.',
    )
    op.add_argument(
        '--compile',
        action='store_true',
        help='also versions compiled by torch.compile, which takes minutes',
    )
    fusion = modes.add_parser(
        'fusion',
        help='the state fusion and its alternatives',
        description="Spatial-Mamba's state fusion at its own sizes: mmssm's "
        'native op, three dilated convolutions of padded maps, and one 11 x '
        '11 convolution with merged weights.',
    )
    op.add_argument(
        '--states',
        type=int,
        metavar='N',
        help="states per channel, at all sizes (default: each size's own)",
    )
    tree = modes.add_parser(
        'tree',
        help='the tree scan, its reference and a 1-D scan',
        description="The tree scan at FractalMamba's sizes: mmssm's native "
        'op, its PyTorch reference, and a 1-D scan of as many tokens.',
    )
    for mode in (op, fusion, tree):
        add_op_options(mode)
    model = modes.add_parser(
        'model',
        help='backbones',
        description='Backbones, from image to feature maps, without neck and '
        'head.',
    )
    model.add_argument(
        '--arch',
        nargs='+',
        default=[],
        help='VMamba archs, or TYPE:ARCH for other backbones of mmssm '
        '(default: tiny-s1l8 unless --config is given)',
    )
    model.add_argument(
        '--config',
        nargs='+',
        default=[],
        metavar='FILE',
        help='configs whose backbones to measure, with the outputs set there',
    )
    model.add_argument(
        '--beside',
        nargs='+',
        default=[],
        choices=[*BESIDE, ORIGINAL],
        metavar='NAME',
        help=f'well-known backbones to compare, from timm if installed, else '
        f'from mmpretrain: {", ".join(BESIDE)}; or {ORIGINAL}: the original '
        'code of VMamba-T, if its files are on the path',
    )
    model.add_argument(
        '--size',
        nargs='+',
        type=int,
        default=[224],
        metavar='PIXELS',
        help='height and width of the images, one or more (default: 224)',
    )
    model.add_argument(
        '--train',
        action='store_true',
        help='forward + backward in training mode (default: inference)',
    )
    model.add_argument(
        '--optimize',
        nargs='+',
        default=[],
        choices=['float32', 'bfloat16', 'compiled'],
        metavar='WAY',
        help='each backbone also optimized for inference: prepared for a CPU '
        'with products in float32 or bfloat16, or compiled with constant '
        'weights, which takes minutes',
    )
    model.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    for mode in (op, fusion, tree, model):
        add_common_options(mode)
    args = parser.parse_args()
    if args.mode == 'model' and args.optimize and (args.train or args.amp):
        parser.error('--optimize is for inference without --train and --amp')
    return args


def add_op_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--backward',
        action='store_true',
        help='measure forward + backward (default: forward in inference mode)',
    )
    parser.add_argument(
        '--dtype',
        default='float32',
        choices=['float32', 'bfloat16', 'float16'],
        help='dtype of the tokens (default: %(default)s)',
    )
    parser.add_argument(
        '--only',
        nargs='+',
        default=[],
        metavar='TEXT',
        help='only sizes whose names contain one of these, e.g. "stage 1"',
    )
    parser.add_argument(
        '--graphs',
        action='store_true',
        help='also replay each in a CUDA graph, without single launches',
    )


def add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--batch', type=int, default=1, help='images in a batch (default: 1)'
    )
    parser.add_argument(
        '--rounds', type=int, default=5, help='timed rounds (default: 5)'
    )
    parser.add_argument(
        '--device',
        help='cpu, cuda or cuda:N (default: a GPU if there is one)',
    )
    parser.add_argument(
        '--threads', type=int, help="CPU threads (default: PyTorch's choice)"
    )
    parser.add_argument(
        '--json', metavar='FILE', help='write every round of the measurement'
    )
    parser.add_argument(
        '--markdown', metavar='FILE', help='append the tables to this page'
    )
    parser.add_argument(
        '--plot', metavar='FILE', help='draw the times: .png, .pdf or .svg'
    )


def main() -> None:
    args = parse_args()
    if args.plot:
        check_figure_path(args.plot)
    device = prepare(args.device, args.threads)
    common = dict(batch=args.batch, rounds=args.rounds, device=device)
    if args.mode != 'model':
        common.update(
            backward=args.backward,
            dtype=getattr(torch, args.dtype),
            only=args.only,
            graphs=args.graphs,
        )
    if args.mode == 'op':
        report = bench_op(compiled=args.compile, states=args.states, **common)
    elif args.mode == 'fusion':
        report = bench_fusion(**common)
    elif args.mode == 'tree':
        report = bench_tree(**common)
    else:
        archs = args.arch or ([] if args.config else ['tiny-s1l8'])
        if device.type != 'cpu' and {*args.optimize} - {'compiled'}:
            raise UserError(
                '--optimize float32 and bfloat16 prepare models for a CPU; '
                'add --device cpu'
            )
        models = backbones(archs, args.config, args.beside)
        report = bench_model(
            with_optimized(models, args.optimize),
            args.size,
            train=args.train,
            amp=args.amp,
            **common,
        )
    command = shlex.join(['python', *sys.argv])
    if args.json:
        report.write_json(args.json, command)
    if args.markdown:
        report.write_markdown(args.markdown, command)
    if args.plot:
        draw_times(report, args.plot)


if __name__ == '__main__':
    run_tool(main)
