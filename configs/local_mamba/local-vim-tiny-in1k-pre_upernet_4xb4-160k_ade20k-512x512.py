_base_ = [
    './_base_/local-vim_upernet_4xb4-160k_ade20k-512x512.py',
    './_base_/local-vim-tiny.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.local_vim,
        img_size=512,
        out_indices=(4, 9, 14, 19),
    ),
    decode_head=dict(in_channels=[_base_.channels] * 4),
    auxiliary_head=dict(in_channels=_base_.channels),
)
