# The released backbone, as detectors and segmentors use it.
checkpoint = (
    'https://github.com/hunto/LocalMamba/releases/download/v1.0.0/'
    'local_vssm_small.ckpt'
)
local_vmamba = dict(
    type='LocalVMamba',
    arch='small',
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
channels = [96, 192, 384, 768]
# The original decays its stem's norm, whose name is a plain number there.
decayed_norms = {'stem.norm': dict(decay_mult=1.0)}
