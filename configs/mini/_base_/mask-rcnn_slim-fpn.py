# Mask R-CNN for 160x160 scenes with objects of about 15 to 70 pixels: a
# quarter of the usual width in the neck and the heads, fewer proposals, and
# box and mask branches that all classes share, since there are few examples
# of each.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']

channels = 64
num_classes = 10

model = dict(
    neck=dict(
        in_channels=[32, 64, 128, 256],
        out_channels=channels,
        num_outs=4,
        norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
    ),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, finest_scale=28),
        bbox_head=dict(
            in_channels=channels,
            fc_out_channels=256,
            num_classes=num_classes,
            reg_class_agnostic=True,
        ),
        mask_roi_extractor=dict(out_channels=channels, finest_scale=28),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            num_classes=num_classes,
            class_agnostic=True,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=400, max_per_img=200),
        rcnn=dict(sampler=dict(num=48, pos_fraction=0.5)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=30)
    ),
)
