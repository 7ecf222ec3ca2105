# UPerNet with a tenth of the usual width in its head, and without the
# auxiliary one.
_base_ = ['mmseg::_base_/models/upernet_r50.py']

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    pretrained=None,
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=48,
        dropout_ratio=0.0,
        num_classes=11,  # the ground and ten digits
        # Five pixels in six are ground.
        loss_decode=dict(class_weight=[0.3] + [1.0] * 10),
    ),
    auxiliary_head=None,
)
