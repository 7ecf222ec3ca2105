_base_ = [
    '../_base_/changemamba_levir-cd-plus.py',
    './_base_/fractal-mamba-tiny.py',
]

model = dict(
    backbone=_base_.fractal_mamba,
    decode_head=dict(
        in_channels=_base_.channels,
        # The backbone's, for four scans along Hilbert curves: a tree of two
        # images in one map would need a choice that nobody has published.
        ssm_ratio=2.0,
        gate=True,
        routes=['hilbert', 'hilbert_t', 'hilbert_flip', 'hilbert_t_flip'],
    ),
)
