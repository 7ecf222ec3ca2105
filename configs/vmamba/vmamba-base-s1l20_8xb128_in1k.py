_base_ = '../_base_/8xb128_in1k.py'

model = dict(
    backbone=dict(type='VMamba', arch='base-s1l20'),
    head=dict(in_channels=1024),
)
