# Scenes of handwritten digits with label maps, built under data/mini on first
# use. Trained by epochs, where MMSegmentation counts iterations.
_base_ = ['mmseg::_base_/default_runtime.py']

# Enlarged by a fifth, since strokes are only a few pixels wide.
test_scale = (192, 192)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    # Never less than the crop: MMSegmentation's weighted loss takes no pixels
    # without a class.
    dict(
        type='RandomResize',
        scale=(160, 160),
        ratio_range=(1.0, 1.3),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=(160, 160)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=test_scale, keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# No flips: they make other digits of some.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(side, side), keep_ratio=True)
                for side in (160, 192, 224)
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(
            type='MiniADE20KDataset',
            data_root='data/mini/ade20k',
            data_prefix=dict(
                img_path='images/training',
                seg_map_path='annotations/training',
            ),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='MiniADE20KDataset',
        data_root='data/mini/ade20k',
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=15),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(window_size=15, by_epoch=True)
randomness = dict(seed=0)
# Two processes with 4 scenes each.
auto_scale_lr = dict(base_batch_size=8)
