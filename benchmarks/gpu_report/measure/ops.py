"""Times of the ops, in several sittings of ``benchmark.py``."""

import shlex
from collections.abc import Iterator
from itertools import product

import torch

from mmssm.analysis.benchmark.routed_selective_scan import bench_op
from mmssm.analysis.benchmark.state_fusion import bench_fusion
from mmssm.analysis.benchmark.tree_scan import bench_tree

from .program import parse_args, save

BENCHES = dict(scan=bench_op, fusion=bench_fusion, tree=bench_tree)
MODES = dict(scan='op', fusion='fusion', tree='tree')
SIZES = dict(scan='VMamba-T', fusion='Spatial-Mamba-T', tree='FractalMamba-T')
# Of each part: op, images, states.
PARTS = dict(
    scan=[('scan', 128, 1)],
    others=[('tree', 128, None), ('fusion', 128, None)],
    more=[('scan', 128, 16), ('scan', 1, 1), ('scan', 1, 16)],
)
DTYPES = ('bfloat16', 'float32')


def settings(part: str, small: bool) -> Iterator[dict]:
    """What a part measures: an op's name and its benchmark's arguments."""
    parts = PARTS[part][:2] if small else PARTS[part]
    for op, batch, states in parts:
        # Convolutions of 16 bits take a CPU seconds.
        dtypes = DTYPES[1:] if small and op == 'fusion' else DTYPES
        for dtype, backward in product(dtypes, (False, True)):
            known = dict(
                op=op,
                batch=batch,
                dtype=dtype,
                backward=backward,
                # The convolutions beside the fusion are slow.
                rounds=2 if op == 'fusion' else 5,
                only=[SIZES[op]],
                graphs=batch == 1,
            )
            if small:
                stages = (3, 4) if part == 'scan' else (4,)
                known.update(
                    batch=2 if part == 'scan' else 1,
                    rounds=1,
                    only=[f'{SIZES[op]} stage {n}' for n in stages],
                    graphs=False,
                )
            yield dict(known, states=states) if states else known


def command(known: dict, device: str) -> str:
    """What repeats a measurement."""
    words = ['python', 'tools/analysis_tools/benchmark.py', MODES[known['op']]]
    for name in ('batch', 'rounds', 'dtype', 'states'):
        if name in known:
            words += [f'--{name}', str(known[name])]
    for name in ('backward', 'graphs'):
        words += [f'--{name}'] if known[name] else []
    return shlex.join([*words, '--only', *known['only'], '--device', device])


def main() -> None:
    """Measure a part, keeping what is done."""
    args = parse_args(tuple(PARTS))
    reports = []
    for known in settings(args.part, args.device.type == 'cpu'):
        options = {k: v for k, v in known.items() if k not in ('op', 'dtype')}
        report = BENCHES[known['op']](
            device=args.device, dtype=getattr(torch, known['dtype']), **options
        )
        print(flush=True)
        reports.append(
            dict(
                settings=known,
                **report.as_dict(command(known, args.device.type)),
            )
        )
        save(args.json, dict(reports=reports))


if __name__ == '__main__':
    main()
