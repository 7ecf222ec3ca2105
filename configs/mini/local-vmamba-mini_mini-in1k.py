_base_ = [
    './_base_/local-vmamba-mini.py',
    './_base_/mini-in1k.py',
    './_base_/schedule.py',
]

model = dict(
    type='ImageClassifier',
    backbone=_base_.local_vmamba_mini,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=256,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
