"""Outputs of the original models, for the same weights and images."""

import importlib.util
import sys
import traceback

import torch
from torch import Tensor, nn

from mmssm.backbones import (
    FractalMamba,
    LocalVim,
    LocalVMamba,
    SpatialMamba,
    Vim,
    VMamba,
)
from mmssm.checkpoint import convert_upstream

from ..steps import ROOT
from .program import exact_float32, parse_args, save

LIMIT = 2e-4  # that of the tests
STAGES = dict(out_indices=(0, 1, 2, 3))
LAST = dict(out_indices=(3,))
PLAIN_MAPS = dict(out_indices=(4, 9, 14, 19), out_type='featmap')
PATH = dict(order='raster', pathways=0.0)
# Backbone, arch and arguments of each case, the quickest first.
CASES = {
    'vim_tiny_cls': (Vim, 'tiny', {}),
    'local_vim_tiny_cls': (LocalVim, 'tiny', {}),
    'vmamba_tiny_s1l8_cls': (VMamba, 'tiny-s1l8', LAST),
    'spatial_mamba_tiny_cls': (SpatialMamba, 'tiny', LAST),
    'local_vmamba_tiny_cls': (LocalVMamba, 'tiny', LAST),
    'groot_v_tiny_raster_path_cls': (FractalMamba, 'tiny', PATH),
    'vmamba_tiny_s1l8_backbone': (VMamba, 'tiny-s1l8', STAGES),
    'vmamba_tiny_s2l5_cls': (VMamba, 'tiny-s2l5', LAST),
    'vmamba_tiny_m2_cls': (VMamba, 'tiny-m2', LAST),
    'vmamba_vanilla_tiny_cls': (VMamba, 'vanilla-tiny', LAST),
    'vmamba_vanilla_tiny_backbone': (VMamba, 'vanilla-tiny', STAGES),
    'spatial_mamba_tiny_backbone': (SpatialMamba, 'tiny', STAGES),
    'local_vmamba_tiny_backbone': (LocalVMamba, 'tiny', STAGES),
    'local_vmamba_tiny_backbone_released_inverse': (
        *(LocalVMamba, 'tiny'),
        dict(STAGES, released_inverse=True),
    ),
    'local_vim_tiny_middle_cls_token_cls': (LocalVim, 'tiny-midcls', {}),
    'local_vim_tiny_backbone': (LocalVim, 'tiny', PLAIN_MAPS),
}
TRIED = 3  # cases on a CPU, which takes its time


class Head(nn.Module):
    """A classifier's: of class tokens, or of the mean of the last map.

    The weights tell its kind: GrootV's begins with a convolution.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        classes, channels = weights['head.fc.weight'].shape
        self.fc = nn.Linear(channels, classes)
        if 'head.conv.weight' in weights:
            inside = weights['head.conv.weight'].shape[1]
            self.conv = nn.Conv2d(inside, channels, 1, bias=False)
            self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The backbone's last output -> logits."""
        if hasattr(self, 'conv'):
            x = nn.functional.gelu(self.bn(self.conv(x)))
        return self.fc(x.mean((2, 3)) if x.dim() == 4 else x)


def load_cases():
    """The tests' class of golden cases."""
    spec = importlib.util.spec_from_file_location(
        'golden_cases', ROOT / 'tests' / 'conftest.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.GoldenCase


def build(name: str, case) -> nn.Module:
    """The model of a case, with its weights."""
    backbone, arch, options = CASES[name]
    weights = case.state_dict()
    # The originals' A_log_0 to 3 of a layer are one tensor, of which the
    # last one loaded counts.
    for key in weights:
        if '.A_log_' in key:
            weights[key] = weights[f'{key[:-1]}3']
    converted = convert_upstream({'model': weights}, name)['state_dict']
    model = nn.Module()
    model.backbone = backbone(arch, **options)
    if name.endswith('_cls'):
        model.head = Head(converted)
    model.load_state_dict(converted, strict=True)
    return model.eval()


@torch.inference_mode()
def error(case, model: nn.Module, device: torch.device, narrow: bool) -> float:
    """The largest of all outputs, relative to the largest value."""
    with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
        outs = model.backbone(case.input().to(device))
        if hasattr(model, 'head'):
            outs = {'logits': model.head(outs[-1])}
        else:
            outs = {f'stage{i}': out for i, out in enumerate(outs)}
    return max(case.error(n, out.float().cpu()) for n, out in outs.items())


def measure(name: str, golden_case, device: torch.device) -> dict:
    """A case's errors, or why there are none."""
    backbone, arch, _ = CASES[name]
    found = dict(name=name, model=f'{backbone.__name__} {arch}', limit=LIMIT)
    try:
        case = golden_case(name)
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
    golden_case, cases = load_cases(), []
    chosen = list(CASES)[: TRIED if args.device.type == 'cpu' else None]
    for name in chosen:
        cases.append(measure(name, golden_case, args.device))
        print(cases[-1], flush=True)
        save(args.json, dict(cases=cases))
    bad = [c for c in cases if not c.get('float32', 1) <= LIMIT]
    if bad:
        sys.exit(f'{len(bad)} of {len(cases)} cases are not as they should be')


if __name__ == '__main__':
    main()
