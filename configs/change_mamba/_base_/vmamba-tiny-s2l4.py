# ChangeMamba's tiny backbone. Its authors start it from tiny-s2l5's file,
# which has one block more in the third stage.
_base_ = '../../vmamba/_base_/vmamba-tiny-s2l5.py'

vmamba = dict(arch='tiny-s2l4', init_cfg=dict(strict=False))
