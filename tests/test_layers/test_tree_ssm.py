"""GrootV's mixer on fixed trees against its definition, path by path."""

import pytest
import torch
import torch.nn.functional as F

from mmssm.layers import TreeSSM, slices
from mmssm.scans.tree import tree_parents


def mixer_of(curve='hilbert', pathways=0.3):
    """A small float64 mixer, its weights far from their initial ones."""
    torch.manual_seed(0)
    mixer = TreeSSM(10, curve, pathways, ssm_ratio=1.2).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def paths(parents):
    """{(i, j): tokens whose edge to their parent lies on the path}."""

    def to_root(token):
        line = []
        while token >= 0:
            line.append(token)
            token = parents[token]
        return line

    lines = [to_root(token) for token in range(len(parents))]
    return {
        (i, j): set(lines[i]) ^ set(lines[j])
        for i in range(len(parents))
        for j in range(len(parents))
    }


def states_by_paths(mixer, x):
    """Each token's state: all values, times the decays on the way to it."""
    height, width = x.shape[1:3]
    parents = tree_parents(mixer.curve, height, width, mixer.pathways)
    tokens = x.flatten(1, 2)
    dt, B, _ = F.linear(tokens, mixer.x_proj_weight[0]).split(
        [mixer.dt_rank, 1, 1], -1
    )
    delta = F.softplus(
        F.linear(dt, mixer.dt_projs_weight[0], mixer.dt_projs_bias[0])
    )
    decay = (-delta * mixer.A_logs.exp().squeeze(1)).exp()
    values = delta * B * tokens
    states = torch.zeros_like(values)
    for (i, j), path in paths(parents.tolist()).items():
        product = values[:, j]
        for token in path:
            product = product * decay[:, token]
        states[:, i] += product
    return states.view(x.shape)


@pytest.mark.parametrize('curve, pathways', [('h', 0.0), ('hilbert', 0.3)])
@pytest.mark.parametrize('size', [(1, 1), (3, 4), (5, 2)])
def test_states_are_sums_over_paths(device, size, curve, pathways):
    mixer = mixer_of(curve, pathways)
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    with torch.no_grad():
        want = states_by_paths(mixer, x)
        states, C = mixer.to(device).scan_states(x.to(device))
        projected = F.linear(x, mixer.cpu().x_proj_weight[0])
    torch.testing.assert_close(states.cpu(), want)
    torch.testing.assert_close(C.cpu(), projected[..., -1:])


@pytest.mark.parametrize('sliced', [False, True])
def test_states_are_normed_read_out_normed_and_gated(
    device, monkeypatch, sliced
):
    mixer = mixer_of().to(device)
    x = torch.randn(2, 5, 7, 10, dtype=torch.float64).to(device)
    with torch.no_grad():
        values, gate = mixer.in_proj(x), mixer.gate_proj(x)
        values = mixer.conv2d(values.permute(0, 3, 1, 2))
        tokens = F.silu(values).permute(0, 2, 3, 1)
        states, C = mixer.scan_states(tokens)
        y = mixer.out_norm(mixer.h_norm(states) * C + mixer.Ds * tokens)
        want = mixer.out_proj(y * F.silu(gate))
        if sliced:
            monkeypatch.setattr(slices, 'SLICE_BYTES', 1000)
        torch.testing.assert_close(mixer(x), want)


def test_every_parameter_learns(device):
    mixer = mixer_of().to(device)
    x = torch.randn(2, 4, 6, 10, dtype=torch.float64).to(device)
    y = mixer(x)
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_states_may_pass_the_largest_float16(device):
    """Sums over a map, which only their norm brings back."""
    torch.manual_seed(0)
    model = TreeSSM(16, 'hilbert', 0.1).eval()
    model.A_logs.data.fill_(-14.0)  # almost no decay
    model.dt_projs_bias.data.fill_(4.0)
    x = 3 * torch.randn(1, 100, 100, 16) + 3
    with torch.no_grad():
        want = model(x)
        states, _ = model.scan_states(model.project_in(x))
        assert states.abs().max() > 65504
        model, x = model.to(device), x.to(device)
        with torch.autocast(device.type, dtype=torch.float16):
            mixed = model(x)
        half = model.half()(x.half())
    scale = want.abs().max()
    for got in (mixed, half):
        assert (got.cpu() - want).abs().max() < 0.02 * scale


def test_bad_curves_are_named():
    mixer = TreeSSM(10, 'w2', 0.1)
    with pytest.raises(ValueError, match="without zero tokens, got 'w2'"):
        mixer(torch.zeros(1, 3, 3, 10))
