_base_ = [
    './_base_/upernet_slim.py',
    './_base_/spatial-mamba-mini.py',
    './_base_/mini-ade20k.py',
    './_base_/schedule.py',
]

model = dict(
    backbone=dict(
        _delete_=True, out_indices=(0, 1, 2, 3), **_base_.spatial_mamba_mini
    ),
    decode_head=dict(in_channels=_base_.widths),
)
optim_wrapper = dict(optimizer=dict(lr=1.2e-3))
