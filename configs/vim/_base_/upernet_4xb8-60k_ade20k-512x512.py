# BEiT's recipe as the authors use it: a pyramid made of four maps of one size,
# 60,000 steps of 32 images (4 GPUs x 8), test in windows.
_base_ = '../../_base_/upernet_4xb4-160k_ade20k-512x512.py'

model = dict(
    neck=dict(type='Feature2Pyramid'),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
train_dataloader = dict(batch_size=8)

# Biases and one-dimensional parameters are free from decay; positions are not.
# The authors' smaller rates for earlier layers reach stem, positions and class
# token only: their code looks for layers by names that this backbone's do not
# have. Each config's stem_lr_mult is the first of their 26 rates.
optim_wrapper = dict(
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, flat_decay_mult=0.0),
)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 60000
train_cfg = dict(max_iters=60000, val_interval=6000)
default_hooks = dict(checkpoint=dict(interval=6000))
auto_scale_lr = dict(base_batch_size=32)
