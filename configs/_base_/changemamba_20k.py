# Change detection as ChangeMamba's authors train it: 20,000 steps of 16 crops
# at a constant rate, a test after every 500, the best one by kappa kept. Whole
# pairs are tested. Complete with a data set's config.
_base_ = ['./changemamba.py', 'mmseg::_base_/default_runtime.py']
custom_imports = dict(imports=['mmssm'], allow_failed_imports=False)

model = dict(data_preprocessor=dict(size=(256, 256)))

# Norms and biases decay, too.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=5e-3
    ),
)
param_scheduler = []
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20000, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=500,
        max_keep_ckpts=1,
        save_best='kappa',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
auto_scale_lr = dict(base_batch_size=16)
