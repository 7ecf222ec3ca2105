_base_ = './_base_/8xb128_in1k.py'

model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=192))
optim_wrapper = dict(optimizer=dict(weight_decay=0.1))
