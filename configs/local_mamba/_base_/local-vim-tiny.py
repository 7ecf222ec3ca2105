# The released backbone, as detectors and segmentors use it.
checkpoint = (
    'https://github.com/hunto/LocalMamba/releases/download/v1.0.0/'
    'local_vim_tiny.ckpt'
)
local_vim = dict(
    type='LocalVim',
    arch='tiny',
    out_type='featmap',
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
channels = 192
