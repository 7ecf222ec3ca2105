_base_ = [
    '../_base_/changemamba_20k.py',
    '../_base_/levir-cd-plus_256x256.py',
    '../vmamba/_base_/vmamba-base-s2l15.py',
]

model = dict(
    backbone=_base_.vmamba,
    decode_head=dict(in_channels=_base_.channels, ssm_ratio=2.0),
)
