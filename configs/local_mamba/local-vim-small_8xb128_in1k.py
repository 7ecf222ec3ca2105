_base_ = [
    './_base_/local-vim_8xb128_in1k.py',
    './_base_/local-vim-small-directions.py',
]

model = dict(
    backbone=dict(arch='small', directions=_base_.directions),
    head=dict(in_channels=384),
)
