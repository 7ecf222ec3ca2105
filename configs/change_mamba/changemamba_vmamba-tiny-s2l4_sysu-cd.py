_base_ = [
    '../_base_/changemamba_20k.py',
    '../_base_/sysu-cd_256x256.py',
    './_base_/vmamba-tiny-s2l4.py',
]

model = dict(
    backbone=_base_.vmamba,
    decode_head=dict(in_channels=_base_.channels, ssm_ratio=2.0),
)
