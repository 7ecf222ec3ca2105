# ChangeMamba's decoder for pairs of images. Complete with a backbone of four
# stages, the channels of its maps and, unless they are those of VMamba's s1
# archs, the settings of its SSM.
model = dict(
    type='mmssm.models.ChangeDetector',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # The earlier image's channels, then the later one's.
        mean=[123.675, 116.28, 103.53] * 2,
        std=[58.395, 57.12, 57.375] * 2,
        pad_val=0,
        seg_pad_val=255,
    ),
    decode_head=dict(
        type='mmssm.models.ChangeMambaHead',
        channels=128,
        num_classes=2,
        drop_path_rate=0.1,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        loss_decode=[
            dict(
                type='CrossEntropyLoss', loss_weight=1.0, avg_non_ignore=True
            ),
            # Over all pixels of a step, as the only reduction it has then.
            dict(
                type='LovaszLoss',
                per_image=False,
                reduction='none',
                loss_weight=0.75,
            ),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
