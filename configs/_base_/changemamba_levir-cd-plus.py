_base_ = ['./changemamba_20k.py', './levir-cd-plus_256x256.py']

# Whole images in windows of the crops' size. ChangeMamba's authors pass an
# image of 1024 x 1024 as one: model.test_cfg.mode=whole.
model = dict(
    test_cfg=dict(mode='slide', crop_size=(256, 256), stride=(256, 256))
)
