# Cascade Mask R-CNN in ViTDet's manner: a feature pyramid from one map, heads
# with layer norms, 100 epochs of large-scale jittering at 1024x1024. 64 images
# per step (32 GPUs x 2).
_base_ = [
    'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmssm'], allow_failed_imports=False)

image_size = (1024, 1024)
norm_cfg = dict(type='mmpretrain.LN2d')
model = dict(
    data_preprocessor=dict(
        # In tests, too, images become squares. There the authors pad them as
        # in training, but boxes in padding make MMDetection fail on a CPU.
        pad_size_divisor=1024,
        batch_augments=[
            dict(type='BatchFixedSizePad', size=image_size, pad_mask=True)
        ],
    ),
    neck=dict(
        _delete_=True,
        type='mmssm.models.SimpleFPN',
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=[
            dict(
                head,
                type='Shared4Conv1FCBBoxHead',
                conv_out_channels=256,
                norm_cfg=norm_cfg,
            )
            for head in _base_.model.roi_head.bbox_head
        ],
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args={{_base_.backend_args}}),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomResize',
        scale=image_size,
        ratio_range=(0.1, 2.0),
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=image_size,
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='Pad', size=image_size, pad_val=dict(img=(114, 114, 114))),
    dict(type='PackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_size
train_dataloader = dict(
    num_workers=8,
    # Images of all shapes become squares.
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# ViTDet's smaller rates for earlier layers reach stem and positions only: the
# authors' code looks for layers by names that this backbone's do not have. So
# it is for decay, from which only the positions are free, not norms.
# stem_lr_mult is the first of ViTDet's 14 rates: the authors left its number
# of layers at 12.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(
        stem_lr_mult=0.7**13,
        custom_keys={'backbone.pos_embed': dict(decay_mult=0.0)},
    ),
    clip_grad=dict(max_norm=35, norm_type=2),
)

max_iters = 184375  # 100 epochs
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=250),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        end=max_iters,
        milestones=[163889, 177546],
        gamma=0.1,
    ),
]
train_cfg = dict(
    type='IterBasedTrainLoop',
    max_iters=max_iters,
    val_interval=5000,
    # Once more at the end.
    dynamic_intervals=[(180001, max_iters)],
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=5)
)
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=64)

# For --tta, which the authors do not use here: three sizes. MMDetection's
# cascaded mask heads fail on mirror images.
tta_model = dict(
    type='mmssm.models.InstanceSegTTAModel',
    tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
)
tta_pipeline = [
    dict(type='LoadImageFromFile', backend_args={{_base_.backend_args}}),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(side, side), keep_ratio=True)
                for side in (768, 896, 1024)
            ],
            [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=(
                        'img_id',
                        'img_path',
                        'ori_shape',
                        'img_shape',
                        'scale_factor',
                    ),
                )
            ],
        ],
    ),
]
