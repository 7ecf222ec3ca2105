# Handwritten digits in ImageNet's folders, built under data/mini on first use.
_base_ = ['mmpretrain::_base_/default_runtime.py']

data_preprocessor = dict(
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    # Slanted, turned, nearer and farther, as other writers' digits are. No
    # flips: they make other digits of some.
    dict(
        type='Shear',
        magnitude_range=(0.0, 0.3),
        magnitude_std='inf',  # from a uniform distribution
        pad_val=200,
    ),
    dict(
        type='Rotate',
        magnitude_range=(0.0, 12.0),
        magnitude_std='inf',
        pad_val=200,
    ),
    dict(
        type='RandomResizedCrop',
        scale=48,
        crop_ratio_range=(0.7, 1.0),
        aspect_ratio_range=(0.8, 1.25),
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # The images' own size; another one tests at another.
    dict(type='Resize', scale=48, interpolation='bicubic'),
    dict(type='PackInputs'),
]
# Three sizes; the smaller views are padded and the larger ones cropped.
tta_model = dict(type='AverageClsScoreTTA')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=size, interpolation='bicubic')
                for size in (42, 48, 54)
            ],
            [
                dict(
                    type='CenterCrop',
                    crop_size=48,
                    auto_pad=True,
                    pad_cfg=dict(type='Pad', padding_mode='edge'),
                )
            ],
            [dict(type='PackInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(
            type='MiniImageNetDataset',
            data_root='data/mini/imagenet',
            data_prefix='train',
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='MiniImageNetDataset',
        data_root='data/mini/imagenet',
        data_prefix='val',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

default_hooks = dict(
    logger=dict(interval=15), checkpoint=dict(max_keep_ckpts=2)
)
log_processor = dict(window_size=15, by_epoch=True)
randomness = dict(seed=0)
# Two processes with 32 images each.
auto_scale_lr = dict(base_batch_size=64)
