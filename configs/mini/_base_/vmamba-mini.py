# A VMamba of the s1 design at a third of its width, trained from scratch.
vmamba_mini = dict(
    type='VMamba',
    arch=dict(
        embed_dims=32,
        depths=(1, 2, 4, 2),
        d_state=1,
        ssm_ratio=1.0,
        mlp_ratio=4.0,
        stem='conv',
        downsample='conv',
        gate=False,
        conv_bias=False,
        mixer='ss2d',
        drop_path_rate=0.05,
        ssm_init='s4d',
        act='SiLU',
    ),
)
