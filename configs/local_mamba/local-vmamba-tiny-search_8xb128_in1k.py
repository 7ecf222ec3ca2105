# The supernet that LocalVMamba's directions are searched with; see README.md.
_base_ = './_base_/local-vmamba_8xb128_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(embed_dims=32, depths=(2, 2, 9, 2)),
        directions='search',
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=256),
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
