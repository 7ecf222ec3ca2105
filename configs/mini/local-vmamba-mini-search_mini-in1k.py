# The search for scan directions, small enough for a CPU: all eight candidates
# in every block, at half the width. tools/search/derive_directions.py makes a
# config of the result, with ./local-vmamba-mini_mini-in1k.py as its base.
_base_ = './local-vmamba-mini_mini-in1k.py'

model = dict(
    backbone=dict(arch=dict(embed_dims=16), directions='search'),
    head=dict(in_channels=128),
)
# The weights of the candidates learn faster than the originals' do in their
# hundred epochs.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'merge.weights': dict(lr_mult=10.0, decay_mult=1.0)}
    )
)
custom_hooks = [
    dict(type='mmssm.engine.DirectionSearchHook', interval=15),
]
