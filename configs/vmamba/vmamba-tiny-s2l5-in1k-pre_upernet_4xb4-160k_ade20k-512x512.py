_base_ = '../_base_/upernet_4xb4-160k_ade20k-512x512.py'

checkpoint = (
    'https://github.com/MzeroMiko/VMamba/releases/download/'
    '%23v2cls/vssm_tiny_0230_ckpt_epoch_262.pth'
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='VMamba',
        arch='tiny-s2l5',
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
# The original decays these norms, whose names are plain numbers there.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'stem.norm': dict(decay_mult=1.0),
            'downsample.norm': dict(decay_mult=1.0),
        }
    )
)
