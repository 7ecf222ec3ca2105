# The recipe of GrootV-T, whose training script the authors of FractalMamba
# name as theirs. It differs from Swin's in the head and in a test on crops
# from images as small as the crop.
_base_ = '../../_base_/8xb128_in1k.py'

model = dict(
    backbone=dict(type='FractalMamba', arch='tiny'),
    neck=None,
    head=dict(
        type='mmssm.models.ConvClsHead', in_channels=640, mid_channels=960
    ),
)
# The cosine goes on under the warm-up.
param_scheduler = _base_.param_scheduler
param_scheduler[1].begin = 0

test_pipeline, tta_pipeline = _base_.test_pipeline, _base_.tta_pipeline
test_pipeline[1].scale = tta_pipeline[1].scale = 224
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
