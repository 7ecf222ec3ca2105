# Pairs of pictures of handwritten digits, some of which changed, built under
# data/mini on first use. Trained by epochs, where MMSegmentation counts
# iterations.
_base_ = ['mmseg::_base_/default_runtime.py']

pack = dict(
    type='PackSegInputs',
    meta_keys=(
        'img_path',
        'img_path_after',
        'seg_map_path',
        'ori_shape',
        'img_shape',
        'pad_shape',
        'scale_factor',
        'flip',
        'flip_direction',
    ),
)
train_pipeline = [
    dict(type='LoadImagePair'),
    dict(type='LoadChangeLabel'),
    # Together every turn by 90 degrees, mirrored or not, equally often: what
    # RandomRotFlip gives alone is always mirrored. Which digit it is does not
    # matter here.
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomRotFlip', rotate_prob=0.0, flip_prob=1.0),
    pack,
]
test_pipeline = [
    dict(type='LoadImagePair'),
    dict(type='LoadChangeLabel'),
    pack,
]
# As they are, and mirrored either way.
tta_pipeline = [
    dict(type='LoadImagePair'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='RandomFlip', prob=0.0),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='vertical'),
            ],
            [dict(type='LoadChangeLabel')],
            [pack],
        ],
    ),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='MiniChangeDataset',
        data_root='data/mini/levir_cd_plus',
        data_prefix=dict(
            img_path='train/A',
            img_path_after='train/B',
            seg_map_path='train/label',
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='MiniChangeDataset',
        data_root='data/mini/levir_cd_plus',
        data_prefix=dict(
            img_path='test/A',
            img_path_after='test/B',
            seg_map_path='test/label',
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmssm.engine.ChangeMetric')
test_evaluator = val_evaluator

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
