_base_ = './_base_/8xb128_in1k.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
# 512 images per step, 8 GPUs x 64: the authors' script, with the same learning
# rate. Their paper says 1024.
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=512)
