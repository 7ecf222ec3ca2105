# WHU-CD: one pair of 32,507 x 15,354, cut into smaller ones. In the folders of
# ChangeMamba's code below data_root: {train,test}/{T1,T2,GT}/*. For a list of
# names, add to a dataset, for example, ann_file='train_set.txt'.
_base_ = './levir-cd-plus_256x256.py'

data_root = 'data/WHU-CD'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(
            img_path='train/T1',
            img_path_after='train/T2',
            seg_map_path='train/GT',
        ),
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(
            img_path='test/T1',
            img_path_after='test/T2',
            seg_map_path='test/GT',
        ),
    )
)
test_dataloader = val_dataloader
