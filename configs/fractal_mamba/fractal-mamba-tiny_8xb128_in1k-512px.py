_base_ = './fractal-mamba-tiny_8xb128_in1k.py'

test_pipeline, tta_pipeline = _base_.test_pipeline, _base_.tta_pipeline
test_pipeline[1].scale = tta_pipeline[1].scale = 512
test_pipeline[2].crop_size = tta_pipeline[2].crop_size = 512
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
