_base_ = './_base_/local-vmamba_8xb128_in1k.py'

model = dict(backbone=dict(arch='tiny'))
