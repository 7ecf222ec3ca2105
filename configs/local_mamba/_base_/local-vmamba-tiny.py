# The backbone as detectors and segmentors use it. Its weights were never
# released: see README.md.
local_vmamba = dict(
    type='LocalVMamba',
    arch='tiny',
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(
        type='Pretrained', checkpoint='checkpoints/local-vmamba-tiny.pth'
    ),
)
channels = [96, 192, 384, 768]
# The original decays its stem's norm, whose name is a plain number there.
decayed_norms = {'stem.norm': dict(decay_mult=1.0)}
