_base_ = [
    '../_base_/mask-rcnn_fpn_1x_coco.py',
    './_base_/local-vmamba-tiny.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.local_vmamba),
    neck=dict(in_channels=_base_.channels),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    paramwise_cfg=dict(custom_keys=_base_.decayed_norms),
)
