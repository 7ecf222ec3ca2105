# The released backbone, as detectors and segmentors use it.
checkpoint = (
    'https://github.com/MzeroMiko/VMamba/releases/download/'
    '%23v0cls/vssmtiny_dp01_ckpt_epoch_292.pth'
)
vmamba = dict(
    type='VMamba',
    arch='vanilla-tiny',
    drop_path_rate=0.1,
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
channels = [96, 192, 384, 768]
# The original decays its stem's norm, whose name is a plain number there.
decayed_norms = {'stem.norm': dict(decay_mult=1.0)}
