_base_ = [
    '../_base_/mask-rcnn_fpn_1x_coco.py',
    './_base_/spatial-mamba-small.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.spatial_mamba),
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.weight_decay))
