# The directions of LocalVim-S in the paper and in the authors' detectors and
# segmentors, those of LocalVim-T. Their classifier's code has others, arch
# 'small': see README.md.
directions = [
    'h v_flip w7 w7_flip',
    'h_flip w2_flip w7 w7_flip',
    'h h_flip v w7',
    'h h_flip v v_flip',
    'h h_flip v v_flip',
    'h h_flip v v_flip',
    'h_flip v v_flip w7',
    'h_flip v v_flip w2_flip',
    'h h_flip v v_flip',
    'h h_flip v v_flip',
    'h v v_flip w2',
    'h v v_flip w2_flip',
    'h h_flip v_flip w7',
    'h_flip v v_flip w2',
    'h h_flip v v_flip',
    'h v w2 w2_flip',
    'v v_flip w2 w7',
    'h h_flip v w2',
    'h h_flip w2_flip w7',
    'v v_flip w2 w2_flip',
]
