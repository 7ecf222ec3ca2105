# UPerNet with an eighth of the usual width in its heads, and normalised by
# groups: a process has too few scenes for BatchNorm.
_base_ = ['mmseg::_base_/models/upernet_r50.py']

norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)
num_classes = 11  # the ground and ten digits

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    pretrained=None,
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=64,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=dict(
        in_channels=128,
        channels=64,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
    ),
)
