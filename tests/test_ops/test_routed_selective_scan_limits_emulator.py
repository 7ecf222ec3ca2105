"""What the routed scan's CUDA launches refuse, at once and in plain words."""

import pytest
import torch


def make_inputs(tokens=4, channels=3, rank=2, states=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=generator).to(dtype)

    return dict(
        x=rand(1, tokens, channels),
        dt=rand(1, tokens, 1, rank),
        A=-torch.rand(1, channels, states),
        B=rand(1, tokens, 1, states),
        C=rand(1, tokens, 1, states),
        D=None,
        dt_weight=torch.rand(1, channels, rank),
        dt_bias=None,
        routes=torch.arange(tokens, dtype=torch.int32).unsqueeze(0),
    )


@pytest.mark.parametrize('sizes', [dict(rank=600), dict(states=200)])
def test_training_fails_in_forward_or_not_at_all(ops, sizes):
    """Of sizes that forward has shared memory for, and backward has not."""
    inputs = [*make_inputs(**sizes).values(), True, 'sum', None]
    y, _ = ops.routed_selective_scan(*inputs)
    assert y.isfinite().all()
    with pytest.raises(RuntimeError, match='bytes of shared memory'):
        ops.routed_selective_scan(*inputs, True)


def test_training_at_the_limit(ops):
    """What forward lets through, backward computes."""
    inputs = make_inputs(rank=530)
    y, checkpoints = ops.routed_selective_scan(
        *inputs.values(), True, 'sum', None, True
    )
    grads = ops._routed_selective_scan_backward(
        torch.ones_like(y), checkpoints, *inputs.values(), True, 'sum'
    )
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize('name', ['dt', 'B', 'C'])
def test_tokens_too_far_apart(ops, name):
    """Kernels would find another token: 32 bits do not hold its place."""
    inputs = make_inputs(tokens=3, rank=1, channels=1, dtype=torch.float16)
    # Memory that is asked for and never touched.
    far = torch.empty(2**32 + 1, dtype=torch.float16)
    for apart, refused in ((2**31 - 1, False), (2**31, True)):
        view = far.as_strided((1, 3, 1, 1), (0, apart, 1, 1))
        view.copy_(inputs[name])
        given = {**inputs, name: view}
        if refused:
            with pytest.raises(RuntimeError, match='must lie within 2.32 val'):
                ops.routed_selective_scan(*given.values())
        else:
            torch.testing.assert_close(
                ops.routed_selective_scan(*given.values()),
                ops.routed_selective_scan(*inputs.values()),
                rtol=0,
                atol=0,
            )


@pytest.mark.parametrize('threads', [128, 256, 1000])
def test_blocks_never_have_more_threads_than_their_sums(ops, threads):
    inputs = make_inputs(channels=300)
    given = [*inputs.values(), True, 'sum']
    y, checkpoints = ops.routed_selective_scan(*given, None, True)
    want = ops._routed_selective_scan_backward(
        torch.ones_like(y), checkpoints, *given
    )
    ops.set_plan(threads, 0, 0)
    for a, b in zip(
        want,
        ops._routed_selective_scan_backward(
            torch.ones_like(y), checkpoints, *given
        ),
    ):
        torch.testing.assert_close(a, b)


def test_more_blocks_than_a_grid_has(ops):
    with pytest.raises(RuntimeError, match='error 9 at the launch'):
        ops.broken('too many blocks')
