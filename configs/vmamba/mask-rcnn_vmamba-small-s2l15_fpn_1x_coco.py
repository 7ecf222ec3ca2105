_base_ = [
    '../_base_/mask-rcnn_fpn_1x_coco.py',
    './_base_/vmamba-small-s2l15.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.vmamba),
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.decayed_norms))
