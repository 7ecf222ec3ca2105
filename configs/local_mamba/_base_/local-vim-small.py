# The backbone as detectors and segmentors use it. Its weights cannot be had:
# see README.md.
local_vim = dict(
    type='LocalVim',
    arch='small',
    out_type='featmap',
    init_cfg=dict(
        type='Pretrained', checkpoint='checkpoints/local-vim-small.pth'
    ),
)
channels = 384
