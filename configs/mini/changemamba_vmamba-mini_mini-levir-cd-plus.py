# ChangeMamba's decoder at a quarter of its width.
_base_ = [
    '../_base_/changemamba.py',
    './_base_/vmamba-mini.py',
    './_base_/mini-levir-cd-plus.py',
    './_base_/schedule.py',
]

model = dict(
    data_preprocessor=dict(size=(96, 96)),
    backbone=dict(out_indices=(0, 1, 2, 3), **_base_.vmamba_mini),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=32),
)
