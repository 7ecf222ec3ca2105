_base_ = [
    '../_base_/upernet_4xb4-160k_ade20k-512x512.py',
    './_base_/fractal-mamba-tiny.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.fractal_mamba),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
