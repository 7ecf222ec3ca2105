# The backbone as detectors and segmentors use it. Its weights cannot be had:
# see README.md.
_base_ = './local-vim-small-directions.py'

local_vim = dict(
    type='LocalVim',
    arch='small',
    directions=_base_.directions,
    out_type='featmap',
    init_cfg=dict(
        type='Pretrained', checkpoint='checkpoints/local-vim-small.pth'
    ),
)
channels = 384
