"""What the measuring programs have in common."""

import argparse
import json
from pathlib import Path

import torch

from mmssm.analysis.benchmark.measure import prepare
from mmssm.utils import atomic_write


def parse_args(parts: tuple[str, ...] = ()) -> argparse.Namespace:
    """Options ``device`` (a torch.device) and ``json``, and a ``part``."""
    parser = argparse.ArgumentParser()
    if parts:
        parser.add_argument('part', choices=parts)
    parser.add_argument('--device', choices=['cpu', 'cuda'], required=True)
    parser.add_argument('--json', type=Path, required=True, metavar='FILE')
    args = parser.parse_args()
    args.device = prepare(args.device, None)
    return args


def save(path: Path, content: dict) -> None:
    """Write what is known by now: a program may be ended at any time."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def exact_float32() -> None:
    """No TF32: its products keep ten bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
