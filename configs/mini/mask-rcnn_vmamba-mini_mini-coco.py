_base_ = [
    './_base_/mask-rcnn_slim-fpn.py',
    './_base_/mini-coco.py',
    './_base_/schedule_8e.py',
]

# A VMamba of the s1 design at a third of its width, trained from scratch.
model = dict(
    backbone=dict(
        _delete_=True,
        type='VMamba',
        arch=dict(
            embed_dims=32,
            depths=(1, 2, 4, 2),
            d_state=1,
            ssm_ratio=1.0,
            mlp_ratio=4.0,
            stem='conv',
            downsample='conv',
            gate=False,
            conv_bias=False,
            mixer='ss2d',
            drop_path_rate=0.05,
            ssm_init='s4d',
            act='SiLU',
        ),
        out_indices=(0, 1, 2, 3),
    )
)
