_base_ = '../_base_/8xb128_in1k.py'

model = dict(backbone=dict(type='SpatialMamba', arch='base'))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmssm.engine.MESAHook', weight=2.0, begin=0.25),
]
