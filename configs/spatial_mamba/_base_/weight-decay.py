# Matched as substrings of the parameters' names, the longest key first. The
# original frees parameters from decay whose names contain "norm". That is so
# for its batch norms, which are called bn here, and not for the norms before
# its mixers and FFNs, which it calls ln_1 and ln_2.
weight_decay = {
    'stem.conv1.bn': dict(decay_mult=0.0),
    'stem.conv2.0.bn': dict(decay_mult=0.0),
    'stem.conv2.1.bn': dict(decay_mult=0.0),
    'stem.conv3.0.bn': dict(decay_mult=0.0),
    'stem.conv3.1.bn': dict(decay_mult=0.0),
    'downsample.conv.2.bn': dict(decay_mult=0.0),
    'backbone.norm': dict(decay_mult=0.0),
    '.norm1': dict(decay_mult=1.0),
    '.norm2': dict(decay_mult=1.0),
}
