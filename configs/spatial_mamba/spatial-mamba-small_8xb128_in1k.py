_base_ = '../_base_/8xb128_in1k.py'

model = dict(
    backbone=dict(type='SpatialMamba', arch='small'),
    head=dict(in_channels=512),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmssm.engine.MESAHook', weight=1.5, begin=0.25),
]
