# The authors give no script for this arch: this is what their paper says, and
# for the drop path their code's default.
_base_ = './_base_/8xb128_in1k.py'

model = dict(backbone=dict(arch='base'))
