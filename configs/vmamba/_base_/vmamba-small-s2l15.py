# The released backbone, as detectors and segmentors use it.
checkpoint = (
    'https://github.com/MzeroMiko/VMamba/releases/download/'
    '%23v2cls/vssm_small_0229_ckpt_epoch_222.pth'
)
vmamba = dict(
    type='VMamba',
    arch='small-s2l15',
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
channels = [96, 192, 384, 768]
# The original decays these norms, whose names are plain numbers there.
decayed_norms = {
    'stem.norm': dict(decay_mult=1.0),
    'downsample.norm': dict(decay_mult=1.0),
}
