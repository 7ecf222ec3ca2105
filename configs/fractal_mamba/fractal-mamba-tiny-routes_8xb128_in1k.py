_base_ = './_base_/8xb128_in1k.py'

model = dict(backbone=dict(scan='routes'))
