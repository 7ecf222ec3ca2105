"""Outputs of the original models, for the same weights and images."""

import importlib.util
import sys
import traceback
from types import ModuleType

import torch
from torch import nn

from mmssm.checkpoint import convert_upstream

from ..steps import ROOT
from .program import exact_float32, parse_args, save

LIMIT = 2e-4  # that of the tests
# On a CPU, which takes its time.
TRIED = ('vim_tiny_cls', 'vmamba_tiny_s1l8_cls', 'spatial_mamba_tiny_cls')


def load(*path: str) -> ModuleType:
    """A file of the tests, which know the cases and their models."""
    file = ROOT.joinpath('tests', *path)
    spec = importlib.util.spec_from_file_location(f'golden_{file.stem}', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GoldenCase = load('conftest.py').GoldenCase
models = load('test_backbones', 'test_golden.py')


def build(name: str, case: GoldenCase) -> nn.Module:
    """The model of a case, with its weights."""
    backbone, arch, options = models.CASES[name]
    weights = models.original_weights(case)
    converted = convert_upstream({'model': weights}, name)
    kind = models.Classifier if name.endswith('_cls') else models.Backbone
    model = kind(backbone(arch, **options))
    model.load_state_dict(converted['state_dict'], strict=True)
    return model.eval()


@torch.inference_mode()
def error(
    case: GoldenCase, model: nn.Module, device: torch.device, narrow: bool
) -> float:
    """The largest of all outputs, relative to the largest value."""
    with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
        outs = model(case.input().to(device))
    if isinstance(outs, torch.Tensor):
        found = {'logits': outs}
    else:
        found = {f'stage{i}': out for i, out in enumerate(outs)}
    return max(case.error(n, out.float().cpu()) for n, out in found.items())


def measure(name: str, device: torch.device) -> dict:
    """A case's errors, or why there are none."""
    backbone, arch, _ = models.CASES[name]
    found = dict(name=name, model=f'{backbone.__name__} {arch}', limit=LIMIT)
    try:
        case = GoldenCase(name)
        model = build(name, case).to(device)
        found['float32'] = error(case, model, device, narrow=False)
        found['bfloat16'] = error(case, model, device, narrow=True)
    except Exception as problem:  # the others still have their turn
        traceback.print_exc()
        found['note'] = f'{type(problem).__name__}: {problem}'.split('\n')[0]
    return found


def main() -> None:
    """Ends with status 1 if a case is missing or beyond its limit."""
    args = parse_args()
    exact_float32()
    cases = []
    for name in TRIED if args.device.type == 'cpu' else models.CASES:
        cases.append(measure(name, args.device))
        print(cases[-1], flush=True)
        save(args.json, dict(cases=cases))
    bad = [c for c in cases if 'note' in c or not c.get('float32', 1) <= LIMIT]
    if bad:
        sys.exit(f'{len(bad)} of {len(cases)} cases are not as they should be')


if __name__ == '__main__':
    main()
