# The supernet that LocalVim's directions are searched with; see README.md.
_base_ = './_base_/local-vim_8xb128_in1k.py'

model = dict(
    backbone=dict(arch=dict(embed_dims=128), directions='search'),
    head=dict(in_channels=128),
)
# The original's weights have four dimensions, so that its optimizer decays
# them.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'merge.weights': dict(decay_mult=1.0)})
)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 100
train_cfg = dict(max_epochs=100)
custom_hooks = [dict(type='mmssm.engine.DirectionSearchHook', interval=200)]
