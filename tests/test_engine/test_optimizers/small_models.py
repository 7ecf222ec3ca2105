"""Small models of every task, and images to train them with."""

import torch
from mmengine.structures import InstanceData, PixelData
from torch.utils.data import Dataset

STAGES = dict(arch=dict(embed_dims=8, depths=(1, 1, 2, 1)))
PLAIN = dict(embed_dims=16, depth=3)
BACKBONES = {
    'VMamba': STAGES,
    'SpatialMamba': STAGES,
    'LocalVMamba': dict(
        arch=dict(
            STAGES['arch'], directions=['h v'] * 5, d_state=4, ssm_ratio=1.0
        )
    ),
    'FractalMamba': STAGES,
    'Vim': dict(arch=PLAIN, img_size=64),
    'LocalVim': dict(arch=dict(PLAIN, directions=['h v'] * 3), img_size=64),
    'mmpretrain.VisionTransformer': dict(
        arch=dict(
            embed_dims=16,
            num_layers=3,
            num_heads=2,
            feedforward_channels=16,
        ),
        img_size=32,
    ),
    'mmpretrain.SwinTransformer': dict(
        arch=dict(embed_dims=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 1, 1)),
        img_size=64,
    ),
}
SCOPES = dict(
    classifier='mmpretrain',
    detector='mmdet',
    segmentor='mmseg',
    change_detector='mmseg',
    pretraining='mmpretrain',
)


def classifier(kind='VMamba', **backbone):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(mean=[127] * 3, std=[127] * 3, num_classes=2),
        backbone=dict(type=kind, **BACKBONES[kind], **backbone),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=64),
    )


def detector(**backbone):
    return dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='DetDataPreprocessor', mean=[127] * 3, std=[127] * 3
        ),
        backbone=dict(
            type='VMamba', **STAGES, out_indices=(1, 2, 3), **backbone
        ),
        neck=dict(
            type='FPN', in_channels=[16, 32, 64], out_channels=8, num_outs=3
        ),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=2,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                scales=[4],
                ratios=[1.0],
                strides=[8, 16, 32],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='FocalLoss'),
            loss_bbox=dict(type='L1Loss'),
        ),
        train_cfg=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
    )


def segmentor(channels=3, **model):
    head = dict(
        type='FCNHead',
        in_channels=64,
        channels=8,
        num_convs=1,
        num_classes=2,
        loss_decode=dict(type='CrossEntropyLoss'),
    )
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[127] * channels,
            std=[127] * channels,
            size=(64, 64),
        ),
        backbone=dict(type='VMamba', **STAGES, out_indices=(0, 1, 2, 3)),
        decode_head=head,
        **model,
    )


def change_detector():
    cfg = segmentor(channels=6)
    cfg['decode_head'] = dict(
        type='mmssm.models.ChangeMambaHead',
        in_channels=[8, 16, 32, 64],
        channels=8,
        loss_decode=dict(type='CrossEntropyLoss'),
    )
    return dict(cfg, type='mmssm.models.ChangeDetector')


def pretraining():
    vectors = dict(
        type='NonLinearNeck', in_channels=64, hid_channels=8, out_channels=64
    )
    return dict(
        type='SimSiam',
        backbone=dict(type='VMamba', **STAGES),
        neck=vectors,
        head=dict(
            type='LatentPredictHead',
            loss=dict(type='CosineSimilarityLoss'),
            predictor=vectors,
        ),
    )


class Samples(Dataset):
    """Two images with what a task predicts of them."""

    def __init__(self, task):
        self.task = task

    def __len__(self):
        return 2

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        shape = (6 if self.task == 'change_detector' else 3, 64, 64)
        image = torch.randint(0, 256, shape, generator=generator)
        return dict(inputs=image, data_samples=self.sample(index))

    def sample(self, index):
        if self.task == 'classifier':
            from mmpretrain.structures import DataSample

            return DataSample().set_gt_label(index)
        if self.task == 'detector':
            from mmdet.structures import DetDataSample

            sample = DetDataSample(
                metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64))
            )
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]),
                labels=torch.tensor([index]),
            )
            return sample
        from mmseg.structures import SegDataSample

        labels = torch.zeros(1, 64, 64, dtype=torch.long)
        labels[:, 20:40, 20:40] = 1
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=labels)
        return sample
