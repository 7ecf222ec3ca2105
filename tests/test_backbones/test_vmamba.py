"""VMamba's own: its archs' fields, its initial values, its routes."""

import pytest
import torch
from torch import nn

from mmssm.backbones import VMamba

MINI = dict(embed_dims=16, depths=(1, 1, 1, 1))


def test_drop_path_rate_is_the_archs():
    model = VMamba('small')
    assert model.stages[3].blocks[1].drop_path.drop_prob == 0.3


def test_initial_values():
    """S4D-Real rates, unit skips, steps of softplus in [1e-3, 1e-1]."""
    model = VMamba('vanilla-tiny')
    model.init_weights()
    mixer = model.stages[0].blocks[0].mixer
    torch.testing.assert_close(
        mixer.A_logs[5].exp(), torch.arange(1.0, 17.0), rtol=1e-5, atol=0
    )
    assert (mixer.Ds == 1).all()
    steps = nn.functional.softplus(mixer.dt_projs_bias)
    assert 1e-3 * 0.99 <= steps.min() and steps.max() <= 0.101
    assert mixer.dt_projs_weight.abs().max() <= 6**-0.5
    linear = mixer.in_proj.weight
    assert linear.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    'arch, message',
    [
        ('huge', "no arch 'huge'; known: tiny-s1l8"),
        (dict(stem='conf'), "'stem' must be one of"),
        (dict(routes='x'), "unknown route 'x'"),
        (dict(mixer='ssd', gate=True), "mixer='ssd' has no gate"),
    ],
)
def test_bad_arch_is_named_in_one_line(arch, message):
    with pytest.raises(ValueError, match=message) as caught:
        VMamba(arch)
    assert '\n' not in str(caught.value)


def test_routes_are_a_choice():
    model = VMamba(dict(MINI, routes='h v_flip'))
    assert model.stages[0].blocks[0].mixer.x_proj_weight.shape[0] == 2
    assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, 128, 1, 1)


def test_archs_of_mamba_2_differ_in_width_and_depth():
    """Nobody has counted the originals of the larger two."""

    def count(arch):
        with torch.device('meta'):
            return sum(p.numel() for p in VMamba(arch).parameters())

    assert count('tiny-m2') < count('small-m2') < count('base-m2')
