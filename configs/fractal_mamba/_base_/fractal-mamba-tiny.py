# The backbone as detectors and segmentors use it. Its weights were never
# released: see README.md.
fractal_mamba = dict(
    type='FractalMamba',
    arch='tiny',
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(
        type='Pretrained', checkpoint='checkpoints/fractal-mamba-tiny.pth'
    ),
)
channels = [80, 160, 320, 640]
