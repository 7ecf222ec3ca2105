# The released backbone, as detectors and segmentors use it. Its file is to be
# downloaded by hand: see README.md.
_base_ = './weight-decay.py'

spatial_mamba = dict(
    type='SpatialMamba',
    arch='base',
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(
        type='Pretrained', checkpoint='checkpoints/spatial-mamba-base.pth'
    ),
)
channels = [96, 192, 384, 768]
