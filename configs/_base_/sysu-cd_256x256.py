# SYSU-CD: pairs of 256 x 256. As unpacked below data_root:
# {train,val,test}/{time1,time2,label}/*.png.
_base_ = './levir-cd-plus_256x256.py'

data_root = 'data/SYSU-CD'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(
            img_path='train/time1',
            img_path_after='train/time2',
            seg_map_path='train/label',
        ),
        tile_size=None,
    )
)
# ChangeMamba's authors choose the best checkpoint by the test set, not by val.
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(
            img_path='test/time1',
            img_path_after='test/time2',
            seg_map_path='test/label',
        ),
    )
)
test_dataloader = val_dataloader
