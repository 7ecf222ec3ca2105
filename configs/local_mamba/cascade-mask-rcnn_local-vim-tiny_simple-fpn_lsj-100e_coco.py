_base_ = [
    './_base_/cascade-mask-rcnn_simple-fpn_lsj-100e_coco.py',
    './_base_/local-vim-tiny.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.local_vim,
        img_size=_base_.image_size,
        out_indices=(19,),
    ),
    neck=dict(in_channels=_base_.channels),
)
