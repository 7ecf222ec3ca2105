# LEVIR-CD+: tiles of 256 x 256 for training, whole pairs of 1024 x 1024 for
# testing. As unpacked: {train,test}/{A,B,label}/*.png below data_root.
dataset_type = 'mmssm.datasets.ChangeDataset'
data_root = 'data/LEVIR-CD+'

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
# ChangeMamba's authors crop 256 x 256 at random from each pair once an epoch;
# here an epoch has all 16 tiles of it. To crop: tile_size=None, and
# dict(type='RandomCrop', crop_size=(256, 256), cat_max_ratio=0.75) third.
train_pipeline = [
    dict(type='mmssm.datasets.LoadImagePair'),
    dict(type='mmssm.datasets.LoadChangeLabel'),
    # Together every turn by 90 degrees, mirrored or not, equally often: what
    # RandomRotFlip gives alone is always mirrored.
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomRotFlip', rotate_prob=0.0, flip_prob=1.0),
    pack,
]
test_pipeline = [
    dict(type='mmssm.datasets.LoadImagePair'),
    dict(type='mmssm.datasets.LoadChangeLabel'),
    pack,
]
# As they are, and mirrored either way.
tta_pipeline = [
    dict(type='mmssm.datasets.LoadImagePair'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='RandomFlip', prob=0.0),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='vertical'),
            ],
            [dict(type='mmssm.datasets.LoadChangeLabel')],
            [pack],
        ],
    ),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='train/A',
            img_path_after='train/B',
            seg_map_path='train/label',
        ),
        tile_size=256,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='test/A',
            img_path_after='test/B',
            seg_map_path='test/label',
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmssm.evaluation.ChangeMetric')
test_evaluator = val_evaluator
