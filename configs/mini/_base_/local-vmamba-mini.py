# A LocalVMamba at a third of its width and half of its depth, trained from
# scratch. The 12 x 12 tokens of the first stage do not divide into windows of
# 7 x 7.
local_vmamba_mini = dict(
    type='LocalVMamba',
    arch=dict(
        embed_dims=32,
        depths=(1, 2, 3, 1),
        d_state=4,
        ssm_ratio=2.0,
        drop_path_rate=0.05,
        directions=[
            'h v w2 w7_flip',
            'h_flip v_flip w2_flip w7',
            'h v w2 w7_flip',
            'h_flip v_flip w2_flip w7',
            'h v w2 w7_flip',
            'h_flip v_flip w2_flip w7',
            'h v w2 w7_flip',
        ],
    ),
)
