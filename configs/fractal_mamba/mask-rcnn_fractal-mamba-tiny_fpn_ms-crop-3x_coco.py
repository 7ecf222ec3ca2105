_base_ = [
    '../_base_/mask-rcnn_fpn_ms-crop-3x_coco.py',
    './_base_/fractal-mamba-tiny.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.fractal_mamba),
    neck=dict(in_channels=_base_.channels),
)
