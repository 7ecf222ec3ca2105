# MMSegmentation's recipe for ViT, without a neck: the heads get four maps of
# one size.
_base_ = '../../_base_/upernet_4xb4-160k_ade20k-512x512.py'

model = dict(auxiliary_head=dict(in_index=3))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'pos_embed': dict(decay_mult=0.0)})
)
