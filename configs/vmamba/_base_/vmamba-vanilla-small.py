# The released backbone, as detectors and segmentors use it.
checkpoint = (
    'https://github.com/MzeroMiko/VMamba/releases/download/'
    '%23v0cls/vssmsmall_dp03_ckpt_epoch_238.pth'
)
vmamba = dict(
    type='VMamba',
    arch='vanilla-small',
    drop_path_rate=0.1,
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
channels = [96, 192, 384, 768]
# The original decays its stem's norm, whose name is a plain number there.
decayed_norms = {'stem.norm': dict(decay_mult=1.0)}
