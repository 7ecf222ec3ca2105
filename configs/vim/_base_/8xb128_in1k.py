# The authors' ImageNet-1k recipe, DeiT's: 300 epochs at 224x224, in single
# precision and without clipping of gradients. A step has each of its images
# three times, augmented anew, and an epoch a third of all images. They also
# set a color jitter of 0.3, which timm ignores as soon as RandAugment is on.
_base_ = '../../_base_/8xb128_in1k.py'

model = dict(backbone=dict(type='Vim'), neck=None)
train_dataloader = dict(sampler=dict(type='RepeatAugSampler', shuffle=True))

# The inherited paramwise_cfg frees biases and one-dimensional parameters from
# decay. The scans' A_logs, convolutions, x_proj_weight and dt_projs_weight
# have more dimensions and are decayed, as in the original.
optim_wrapper = dict(
    type='OptimWrapper',
    paramwise_cfg=dict(
        custom_keys={
            'backbone.pos_embed': dict(decay_mult=0.0),
            'backbone.cls_token': dict(decay_mult=0.0),
        }
    ),
    clip_grad=None,
)
param_scheduler = [
    # A step of 1/5 after each of the first five epochs.
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=6),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, end=300),
]
# The mean keeps 0.99996 of itself at every step.
custom_hooks = [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
