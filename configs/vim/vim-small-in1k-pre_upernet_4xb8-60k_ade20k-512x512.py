_base_ = './_base_/upernet_4xb8-60k_ade20k-512x512.py'

channels = 384
model = dict(
    backbone=dict(
        _delete_=True,
        type='Vim',
        arch='small',
        img_size=512,
        out_type='featmap',
        drop_path_rate=0.1,
        out_indices=(5, 11, 17, 23),
        # To be downloaded by hand: see README.md.
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/vim-small.pth'
        ),
    ),
    neck=dict(embed_dim=channels),
    decode_head=dict(in_channels=[channels] * 4, channels=channels),
    auxiliary_head=dict(in_channels=channels),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(stem_lr_mult=0.95**25),
)
