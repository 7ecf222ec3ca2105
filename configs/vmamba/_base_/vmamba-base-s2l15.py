# The released backbone, as detectors and segmentors use it.
checkpoint = (
    'https://github.com/MzeroMiko/VMamba/releases/download/'
    '%23v2cls/vssm_base_0229_ckpt_epoch_237.pth'
)
vmamba = dict(
    type='VMamba',
    arch='base-s2l15',
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
channels = [128, 256, 512, 1024]
# The original decays these norms, whose names are plain numbers there.
decayed_norms = {
    'stem.norm': dict(decay_mult=1.0),
    'downsample.norm': dict(decay_mult=1.0),
}
