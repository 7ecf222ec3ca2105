# Pairs of pictures of handwritten digits, some of which changed, built under
# data/mini on first use. Trained by epochs, where MMSegmentation counts
# iterations.
_base_ = [
    '../../_base_/levir-cd-plus_256x256.py',
    'mmseg::_base_/default_runtime.py',
]

mini = dict(type='MiniChangeDataset', data_root='data/mini/levir_cd_plus')
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=4,
    sampler=dict(type='DefaultSampler'),
    # Pairs are as small as a tile.
    dataset=dict(tile_size=None, **mini),
    **loader,
)
val_dataloader = dict(dataset=mini, **loader)
test_dataloader = val_dataloader

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=15),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='kappa',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(window_size=15, by_epoch=True)
randomness = dict(seed=0)
# Two processes with 4 pairs each.
auto_scale_lr = dict(base_batch_size=8)
