# A Spatial-Mamba at three eighths of its width, trained from scratch.
spatial_mamba_mini = dict(
    type='SpatialMamba',
    arch=dict(
        embed_dims=24,
        depths=(1, 2, 4, 2),
        ssm_ratio=2.0,
        mlp_ratio=4.0,
        drop_path_rate=0.0,
    ),
)
widths = [24, 48, 96, 192]
