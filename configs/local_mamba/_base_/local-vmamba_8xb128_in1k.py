_base_ = './8xb128_in1k.py'

model = dict(backbone=dict(type='LocalVMamba'))
# The authors train these, and not LocalVim, in mixed precision.
optim_wrapper = dict(type='AmpOptimWrapper')
