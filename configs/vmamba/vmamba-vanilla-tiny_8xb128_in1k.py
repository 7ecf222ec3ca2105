_base_ = '../_base_/8xb128_in1k.py'

# The released weights were trained with a drop path of 0.1 and without the
# running mean of the weights.
model = dict(
    backbone=dict(type='VMamba', arch='vanilla-tiny', drop_path_rate=0.1)
)
custom_hooks = []
