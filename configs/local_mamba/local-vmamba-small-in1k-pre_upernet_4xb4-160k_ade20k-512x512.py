_base_ = [
    '../_base_/upernet_4xb4-160k_ade20k-512x512.py',
    './_base_/local-vmamba-small.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.local_vmamba),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
# Unlike the tiny one's, in mixed precision.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    paramwise_cfg=dict(custom_keys=_base_.decayed_norms),
)
