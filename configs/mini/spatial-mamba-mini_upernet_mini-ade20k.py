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
    decode_head=dict(
        in_channels=_base_.widths,
        # With more of the ground it takes epochs to see anything else.
        loss_decode=dict(class_weight=[0.1] + [1.0] * 10),
    ),
)
# A step takes longer than VMamba's, and fewer are enough.
train_dataloader = dict(dataset=dict(times=2))
optim_wrapper = dict(optimizer=dict(lr=1.2e-3))
