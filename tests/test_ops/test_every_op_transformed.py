"""Every op under torch.func, torch.compile and torch.export."""

import pytest
import torch
from on_device import move
from op_cases import CASES
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import grad, jacrev, jvp, vmap

# vmap runs an op once for each item, and says that this takes long.
pytestmark = pytest.mark.filterwarnings('ignore:There is a performance drop')

BATCH = 3  # of the cases
# Of these some have as many routes or filters.
WITHOUT_BATCH = ('A', 'D', 'dt_weight', 'dt_bias', 'weight', 'alpha')


def constant(name, device):
    """A case's float64 inputs without a graph."""
    inputs = move(CASES[name].make(torch.float64), device)
    return {
        k: v.detach() if torch.is_tensor(v) else v for k, v in inputs.items()
    }


def some_of(inputs):
    """The names of the tokens, and of a parameter."""
    tokens = 'u' if 'delta' in inputs else 'x'
    return tokens, 'weight' if 'weight' in inputs else 'A'


def loss_of(function, inputs):
    tokens, parameter = some_of(inputs)

    def loss(weights, x):
        given = {**inputs, tokens: x, parameter: weights}
        return function(**given).square().sum()

    return loss


@pytest.mark.parametrize('kind', ['op', 'reference'])
@pytest.mark.parametrize('name', CASES)
def test_gradients_of_each_sample(device, name, kind):
    """grad, and vmap of it over samples with common parameters."""
    inputs = constant(name, device)
    tokens, parameter = some_of(inputs)
    loss = loss_of(getattr(CASES[name], kind), inputs)
    of_both = grad(loss, argnums=(0, 1))
    weights = inputs[parameter]
    samples = torch.stack([inputs[tokens] * scale for scale in (1, 2, -1)])
    wanted = []
    for x in samples:
        leaves = [t.clone().requires_grad_() for t in (weights, x)]
        wanted.append(torch.autograd.grad(loss(*leaves), leaves))
        torch.testing.assert_close(of_both(weights, x), wanted[-1])
    got = vmap(of_both, in_dims=(None, 0))(weights, samples)
    want = tuple(torch.stack(each) for each in zip(*wanted))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('kind', ['op', 'reference'])
@pytest.mark.parametrize('name', CASES)
def test_jacobian(device, name, kind):
    inputs = constant(name, device)
    _, parameter = some_of(inputs)
    weights = inputs.pop(parameter)

    def some_results(weights):
        y = getattr(CASES[name], kind)(**inputs, **{parameter: weights})
        return y.flatten()[:: y.numel() // 5]

    got = jacrev(some_results)(weights)
    leaf = weights.clone().requires_grad_()
    want = [
        torch.autograd.grad(y, leaf, retain_graph=True)[0]
        for y in some_results(leaf)
    ]
    torch.testing.assert_close(got, torch.stack(want))


@pytest.mark.parametrize('name', CASES)
def test_vmap_over_all_tensors(device, name):
    """Routes and trees, too."""
    op, inputs = CASES[name].op, constant(name, device)
    options = {k: v for k, v in inputs.items() if not torch.is_tensor(v)}
    options.update({k: v for k, v in inputs.items() if v is None})
    tensors = {k: v for k, v in inputs.items() if torch.is_tensor(v)}
    both = {
        k: torch.stack([v, v * 0.5 if v.is_floating_point() else v])
        for k, v in tensors.items()
    }
    got = vmap(lambda given: op(**given, **options))(both)
    want = [
        op(**{k: v[i] for k, v in both.items()}, **options) for i in (0, 1)
    ]
    torch.testing.assert_close(got, torch.stack(want))


@pytest.mark.parametrize('name', CASES)
def test_derivatives_that_are_missing_are_refused(device, name):
    """By the name of the function that was called."""
    op, inputs = CASES[name].op, constant(name, device)
    tokens, parameter = some_of(inputs)
    x, weights = inputs[tokens], inputs[parameter]
    loss = loss_of(op, inputs)

    def slope(x):
        return grad(loss, argnums=1)(weights, x).sum()

    refused = f'^{op.__name__} has no {{}} derivative; use {op.__name__}_ref'
    with pytest.raises(RuntimeError, match=refused.format('second')):
        grad(slope)(x)
    with pytest.raises(RuntimeError, match=refused.format('second')):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(
            loss(weights, leaf), leaf, create_graph=True
        )
        first.sum().backward()
    with pytest.raises(RuntimeError, match=refused.format('forward-mode')):
        jvp(lambda x: loss(weights, x), (x,), (x,))


class Layer(torch.nn.Module):
    """An op whose inputs without a batch are parameters and buffers."""

    def __init__(self, name, device):
        super().__init__()
        self.op, self.options, self.example = CASES[name].op, {}, {}
        inputs = move(CASES[name].make(torch.float32), device)
        for key, value in inputs.items():
            if not torch.is_tensor(value):
                self.options[key] = value
            elif not value.is_floating_point():
                self.register_buffer(f'own_{key}', value)
            elif key in WITHOUT_BATCH or value.shape[0] != BATCH:
                value = torch.nn.Parameter(value.detach())
                self.register_parameter(f'own_{key}', value)
            else:
                self.example[key] = value.detach()

    def forward(self, maps):
        own = [*self.named_parameters(), *self.named_buffers()]
        own = {key.removeprefix('own_'): value for key, value in own}
        return self.op(**maps, **own, **self.options)

    def of_size(self, batch):
        """Example inputs of another batch size."""
        return {
            k: v[torch.arange(batch) % BATCH].requires_grad_()
            for k, v in self.example.items()
        }


@pytest.mark.parametrize('name', CASES)
def test_exported_program_takes_any_batch(device, name):
    """Though it is exported with parameters that are to be trained."""
    layer = Layer(name, device)
    batch = torch.export.Dim('batch', min=1)
    exported = torch.export.export(
        layer,
        (layer.example,),
        dynamic_shapes=({key: {0: batch} for key in layer.example},),
    ).module()
    for size in (1, 2, 5):
        maps = layer.of_size(size)
        torch.testing.assert_close(exported(maps), layer(maps))


@pytest.mark.parametrize('name', CASES)
def test_compiled_training_takes_any_batch(device, name):
    """With one graph for the first size and one for all others."""
    layer = Layer(name, device)
    torch.compiler.reset()  # or those of other tests count, too
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    for size in (3, 2, 5):
        maps = layer.of_size(size)
        leaves = [*maps.values(), *layer.parameters()]
        got, want = (run(maps) for run in (compiled, layer))
        torch.testing.assert_close(got, want)
        grads = [torch.autograd.grad(y.sum(), leaves) for y in (got, want)]
        torch.testing.assert_close(*grads)
    assert counter.frame_count <= 2
