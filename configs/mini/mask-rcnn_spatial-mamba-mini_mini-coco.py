_base_ = [
    './_base_/mask-rcnn_slim-fpn.py',
    './_base_/spatial-mamba-mini.py',
    './_base_/mini-coco.py',
    './_base_/schedule.py',
]

model = dict(
    backbone=dict(
        _delete_=True, out_indices=(0, 1, 2, 3), **_base_.spatial_mamba_mini
    ),
    neck=dict(in_channels=_base_.widths),
)
