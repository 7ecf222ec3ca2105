# A Spatial-Mamba at half of its width, trained from scratch.
spatial_mamba_mini = dict(
    type='SpatialMamba',
    arch=dict(
        embed_dims=32,
        depths=(1, 2, 4, 2),
        ssm_ratio=1.0,
        mlp_ratio=4.0,
        drop_path_rate=0.05,
    ),
)
