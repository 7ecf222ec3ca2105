_base_ = [
    '../_base_/changemamba_levir-cd-plus.py',
    './_base_/vmamba-tiny-s1l8.py',
]

model = dict(
    backbone=_base_.vmamba,
    decode_head=dict(in_channels=_base_.channels),
)
