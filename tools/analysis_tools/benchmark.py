"""Time the native ops beside their references, in interleaved rounds."""

import argparse
import json

import torch

from mmssm.analysis.benchmark import machine, time_scan


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('what', choices=['op'], help='what to time')
    parser.add_argument('--batch', type=int, default=1, help='images')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument(
        '--backward', action='store_true', help='time forward and backward'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1')
    parser.add_argument(
        '--dtype',
        default='float32',
        choices=['float32', 'bfloat16', 'float16'],
    )
    parser.add_argument(
        '--threads', type=int, default=2, help='CPU threads (default: 2)'
    )
    parser.add_argument('--json', metavar='FILE', help='also write the times')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    step = 'forward + backward' if args.backward else 'forward'
    print(machine(args.device))
    print(f'routed_selective_scan, {step}, batch {args.batch}, {args.dtype}')
    print(
        f'{"case":20}{"native":>12}{"reference":>12}{"ratio":>9}', flush=True
    )
    rows = []
    for native, reference in time_scan(
        args.batch,
        args.rounds,
        args.backward,
        args.device,
        getattr(torch, args.dtype),
    ):
        ratio = reference.median / native.median
        print(
            f'{native.case:20}{native.median * 1e3:9.2f} ms'
            f'{reference.median * 1e3:9.1f} ms{ratio:8.1f}x',
            flush=True,
        )
        rows.append(
            dict(
                case=native.case,
                native_s=native.median,
                reference_s=reference.median,
                ratio=ratio,
            )
        )
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(dict(machine=machine(args.device), rows=rows), file)


if __name__ == '__main__':
    main()
