"""Spatial-Mamba's mixer against its definition, one token at a time."""

import pytest
import torch
import torch.nn.functional as F

from mmssm.layers import StructureAwareSSM


def mixer_of(embed_dims=10, ssm_ratio=1.2):
    """A small float64 mixer, its weights far from their initial ones."""
    torch.manual_seed(0)
    mixer = StructureAwareSSM(embed_dims, ssm_ratio).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def states_by_tokens(mixer, x):
    """One recurrence over the rows of a map (B, H, W, C), and its C."""
    batch, height, width, inner = x.shape
    dt, B, C = F.linear(x, mixer.x_proj_weight).split(
        [mixer.dt_rank, 1, 1], -1
    )
    delta = F.softplus(
        F.linear(dt, mixer.dt_projs_weight, mixer.dt_projs_bias)
    )
    decay_rate = -mixer.A_logs.exp().squeeze(1)
    state, states = x.new_zeros(batch, inner), torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            at = (slice(None), row, column)
            decay = (delta[at] * decay_rate).exp()
            state = decay * state + delta[at] * B[at] * x[at]
            states[at] = state
    return states, C


def fused(mixer, states):
    """Three filters of dilation 1, 3 and 5, weighted with alpha.

    Beyond the border, the map goes on with its values at the border.
    """
    x = states.permute(0, 3, 1, 2)
    total = 0
    for i, dilation in enumerate((1, 3, 5)):
        total = total + mixer.fusion_alpha[i] * F.conv2d(
            F.pad(x, (dilation,) * 4, mode='replicate'),
            mixer.fusion_weight[i].unsqueeze(1),
            dilation=dilation,
            groups=x.shape[1],
        )
    return total.permute(0, 2, 3, 1)


@pytest.mark.parametrize('size', [(1, 1), (3, 5), (12, 7)])
def test_scan_is_recurrence_fusion_and_read_out(device, size):
    mixer = mixer_of()
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    with torch.no_grad():
        states, C = states_by_tokens(mixer, x)
        want = fused(mixer, states) * C + mixer.Ds * x
        got = mixer.to(device).scan(x.to(device)).cpu()
    torch.testing.assert_close(got, want)


def test_batch_items_do_not_mix(device):
    mixer = mixer_of().to(device)
    x = torch.randn(3, 4, 5, 10, dtype=torch.float64).to(device)
    single = torch.cat([mixer(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(mixer(x), single)
    assert mixer(x[:0]).shape == (0, 4, 5, 10)


def test_every_parameter_learns(device):
    mixer = mixer_of().to(device)
    x = torch.randn(2, 12, 12, 10, dtype=torch.float64).to(device)
    y = mixer(x)
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_initial_values_are_the_originals():
    """Plain sums of neighbors and one slow state per channel."""
    torch.manual_seed(0)
    mixer = StructureAwareSSM(64)
    assert mixer.inner_dims == 128 and mixer.dt_rank == 4
    for ones in (mixer.Ds, mixer.fusion_weight, mixer.fusion_alpha):
        assert (ones == 1).all()
    assert mixer.A_logs.shape == (128, 1) and (mixer.A_logs == 0).all()
