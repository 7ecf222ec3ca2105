"""Throughput of the tiny model of every family, in ``benchmark.py model``."""

import shlex

from mmssm.analysis.benchmark.model import (
    ORIGINAL,
    backbones,
    bench_model,
)

from .program import parse_args, save

ARCHS = (
    'tiny-s1l8',
    'SpatialMamba:tiny',
    'LocalVMamba:tiny',
    'LocalVim:tiny',
    'Vim:tiny',
    'FractalMamba:tiny',
)
BESIDE = ('swin-tiny', 'convnext-tiny')
# Pixels, images and rounds of each part; then the same for a try on a CPU.
PARTS = dict(small=(224, 128, 3), large=(1024, 8, 3))
TRIES = dict(small=(32, 2, 1), large=(64, 2, 1))


def command(known: dict, beside: tuple[str, ...], device: str) -> str:
    """What repeats a measurement."""
    words = ['python', 'tools/analysis_tools/benchmark.py', 'model', '--arch']
    words += [*ARCHS, *(['--beside', *beside] if beside else [])]
    for name in ('size', 'batch', 'rounds'):
        words += [f'--{name}', str(known[name])]
    for name in ('train', 'amp'):
        words += [f'--{name}'] if known[name] else []
    return shlex.join([*words, '--device', device])


def _is_there(name: str) -> bool:
    """Whether a backbone can join; says why not."""
    try:
        backbones(beside=[name])
    except ValueError as problem:
        print(f'{name} is left out: {problem}')
        return False
    return True


def main() -> None:
    """Inference, then training."""
    args = parse_args(tuple(PARTS))
    sizes = TRIES if args.device.type == 'cpu' else PARTS
    size, batch, rounds = sizes[args.part]
    beside = tuple(filter(_is_there, (*BESIDE, ORIGINAL)))
    reports = []
    for train in (False, True):
        known = dict(size=size, batch=batch, rounds=rounds)
        # Most CPUs have no 16-bit arithmetic.
        known.update(train=train, amp=args.device.type == 'cuda')
        report = bench_model(
            backbones(ARCHS, (), beside),
            [size],
            batch=batch,
            rounds=rounds,
            train=train,
            amp=known['amp'],
            device=args.device,
        )
        print(flush=True)
        repeat = command(known, beside, args.device.type)
        reports.append(dict(settings=known, **report.as_dict(repeat)))
        save(args.json, dict(reports=reports))


if __name__ == '__main__':
    main()
