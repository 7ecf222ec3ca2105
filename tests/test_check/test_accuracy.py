"""A broken op does not pass; the ops as they are do."""

import pytest
import torch

import mmssm.ops
from mmssm.check import accuracy
from mmssm.check.accuracy import LIMITS, check
from mmssm.check.cases import cases

OPS = ['routed_selective_scan', 'selective_scan', 'state_fusion', 'tree_scan']
CPU = torch.device('cpu')


def break_op(monkeypatch, op, broken):
    """Put ``broken``, which takes the right result, in the op's place."""
    right = getattr(mmssm.ops, op)
    monkeypatch.setattr(mmssm.ops, op, lambda **given: broken(right(**given)))


def of_op(op):
    return [case for case in cases() if case.op == op]


class WrongGradient(torch.autograd.Function):
    """Nothing forward, the other sign backward."""

    @staticmethod
    def forward(ctx, y):
        return y.clone()

    @staticmethod
    def backward(ctx, grad):
        return -grad


def test_every_op_is_checked():
    assert {case.op for case in cases()} == set(OPS)


def test_ops_pass():
    results = list(accuracy('cpu'))
    assert len(results) == len(cases()) * len(LIMITS)
    assert [r for r in results if not r.passed] == []


@pytest.mark.parametrize('op', OPS)
def test_flipped_sign(monkeypatch, op):
    break_op(monkeypatch, op, torch.neg)
    for case in of_op(op):
        for dtype, limit in LIMITS.items():
            result = check(case, CPU, dtype, limit)
            assert not result.passed and result.forward > 1


@pytest.mark.parametrize('op', OPS)
def test_wrong_gradient(monkeypatch, op):
    break_op(monkeypatch, op, WrongGradient.apply)
    for case in of_op(op):
        result = check(case, CPU, torch.float32, 1e-3)
        assert not result.passed
        assert result.forward < 1e-5 and result.backward > 1
        assert result.gradient in case.tensors


@pytest.mark.parametrize('op', OPS)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_one_value_that_is_not_finite(monkeypatch, op, value):
    def broken(y):
        spoiled = torch.zeros_like(y)
        spoiled[(-1,) * y.ndim] = value
        return y + spoiled

    break_op(monkeypatch, op, broken)
    for case in of_op(op):
        result = check(case, CPU, torch.float32, 1e-3)
        assert not result.passed and result.forward == float('inf')


@pytest.mark.parametrize('op', OPS)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_gradient_that_is_not_finite(monkeypatch, op, value):
    def broken(y):
        y.register_hook(lambda grad: grad * value)
        return y

    break_op(monkeypatch, op, broken)
    for case in of_op(op):
        result = check(case, CPU, torch.float32, 1e-3)
        assert not result.passed and result.backward == float('inf')
        assert result.forward < 1e-5


@pytest.mark.parametrize('broken', [torch.Tensor.float, torch.flatten])
def test_wrong_dtype_or_shape(monkeypatch, broken):
    break_op(monkeypatch, 'selective_scan', broken)
    for case in of_op('selective_scan'):
        result = check(case, CPU, torch.bfloat16, 1.0)
        assert not result.passed and result.forward == float('inf')


def test_failure_is_told_and_others_go_on(monkeypatch):
    def broken(y):
        raise RuntimeError('no kernel\nimage')

    break_op(monkeypatch, 'state_fusion', broken)
    results = list(accuracy('cpu'))
    failed = [r for r in results if not r.passed]
    assert {r.op for r in failed} == {'state_fusion'}
    assert {r.failure for r in failed} == {'RuntimeError: no kernel image'}
    assert len(failed) < len(results)


def test_failing_reference_is_told(monkeypatch):
    def broken(**given):
        raise MemoryError('too large')

    monkeypatch.setattr(mmssm.ops, 'tree_scan_reference', broken)
    for case in of_op('tree_scan'):
        result = check(case, CPU, torch.float32, 1e-3)
        assert result.failure == 'MemoryError: too large'
        assert not result.passed


def test_error_is_relative_to_the_largest_value(monkeypatch):
    break_op(monkeypatch, 'tree_scan', lambda y: y + 1e-3 * y.abs().max())
    for case in of_op('tree_scan'):
        result = check(case, CPU, torch.float64, 1e-11)
        assert result.forward == pytest.approx(1e-3)
