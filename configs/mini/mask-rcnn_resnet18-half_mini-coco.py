_base_ = [
    './_base_/mask-rcnn_slim-fpn.py',
    './_base_/mini-coco.py',
    './_base_/schedule.py',
]

# ResNet-18 with half the channels, trained from scratch.
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        base_channels=32,
        norm_eval=False,
        out_indices=(0, 1, 2, 3),
    )
)
