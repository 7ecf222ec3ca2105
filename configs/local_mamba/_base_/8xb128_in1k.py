# The authors' ImageNet-1k recipe: 300 epochs at 224x224, 1024 images per step
# (8 GPUs x 128), no running mean of the weights, no clipping of gradients.
# They also set a color jitter of 0.3, which their code ignores as soon as
# RandAugment is on, as timm does.
_base_ = '../../_base_/8xb128_in1k.py'

model = dict(
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.2),
            dict(type='CutMix', alpha=1.0),
        ]
    )
)

# "rand-m9-mstd0.5" without "-inc1": what a level does is timm's first choice,
# by which high levels posterize and solarize little and always enhance. Their
# distortion, zoom and skew are left out, which MMPretrain does not have.
train_pipeline = _base_.train_pipeline
train_pipeline[3].policies = [
    # Level 9; Pillow refuses the numbers that MMPretrain makes of levels.
    dict(type='GaussianBlur', radius=0.45),
    dict(type='AutoContrast'),
    dict(type='Equalize'),
    dict(type='Invert'),
    dict(type='Rotate', magnitude_range=(0, 30)),
    # Rounded up from here, where they round down from (0, 4).
    dict(type='Posterize', magnitude_range=(-1, 3)),
    dict(type='Solarize', magnitude_range=(0, 256)),
    dict(type='SolarizeAdd', magnitude_range=(0, 110)),
    *[
        dict(type=kind, magnitude_range=(-0.9, 0.9), random_negative_prob=0.0)
        for kind in ('ColorTransform', 'Contrast', 'Brightness', 'Sharpness')
    ],
    *[
        dict(type=kind, magnitude_range=(0, most), direction=direction)
        for kind, most in [('Shear', 0.3), ('Translate', 0.45)]
        for direction in ('horizontal', 'vertical')
    ],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# The inherited paramwise_cfg frees biases and one-dimensional parameters from
# decay. The scans' A_logs, convolutions, x_proj_weight, dt_projs_weight and,
# in LocalVMamba, dt_projs_bias have more and are decayed, as in the original.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(weight_decay=0.04), clip_grad=None
)
param_scheduler = [
    # A step of 1/20 after each of the first 20 epochs.
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, end=21),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=20,
        end=300,
        convert_to_iter_based=True,
    ),
]
custom_hooks = []
