_base_ = [
    '../_base_/changemamba_levir-cd-plus.py',
    './_base_/spatial-mamba-tiny.py',
]

model = dict(
    backbone=_base_.spatial_mamba,
    decode_head=dict(
        in_channels=_base_.channels,
        # The backbone's, for the decoder's four-route scans.
        ssm_ratio=2.0,
        gate=True,
        conv_bias=True,
    ),
)
