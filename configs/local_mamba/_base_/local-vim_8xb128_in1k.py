_base_ = './8xb128_in1k.py'

model = dict(
    backbone=dict(type='LocalVim'), neck=None, head=dict(in_channels=192)
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone.pos_embed': dict(decay_mult=0.0),
            'backbone.cls_token': dict(decay_mult=0.0),
        }
    )
)
