"""MESA in real runs of a small classifier with batch norms and drop path."""

from copy import deepcopy

import pytest
import torch
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import distributed, nn
from torch.utils.data import Dataset

from mmssm.checkpoint import load_file
from mmssm.engine import MESAHook
from mmssm.engine.hooks.mesa_hook import soft_cross_entropy
from mmssm.utils import ConfigError

CLASSES = 5
BATCHES = 4  # in an epoch


class Images(Dataset):
    def __len__(self):
        return 4 * BATCHES

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 32, 32), generator=generator)
        sample = DataSample().set_gt_label(index % CLASSES)
        return dict(inputs=image, data_samples=sample)


def classifier(drop_path_rate=0.5, augments=True):
    mixup = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(
            mean=[127.5] * 3,
            std=[127.5] * 3,
            num_classes=CLASSES,
            to_rgb=False,
        ),
        backbone=dict(
            type='SpatialMamba',
            arch=dict(embed_dims=8, depths=(1, 1, 1, 1)),
            drop_path_rate=drop_path_rate,
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=CLASSES,
            in_channels=64,
            # Answers that differ much between images.
            init_cfg=dict(type='Normal', layer='Linear', std=0.3),
            loss=dict(
                type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'
            ),
            cal_acc=False,
        ),
        train_cfg=dict(augments=mixup) if augments else None,
    )


class Recorder(Hook):
    """Each step's losses; the teacher's share recomputed from its inputs."""

    priority = 'LOWEST'

    def __init__(self):
        self.losses = {}
        self.expected = {}

    def before_train(self, runner):
        self.runner = runner
        model = getattr(runner.model, 'module', runner.model)
        self.ema = next(h for h in runner.hooks if hasattr(h, 'ema_model'))
        self.handles = [
            model.head.register_forward_hook(self.note),
            model.register_forward_hook(self.compute, with_kwargs=True),
        ]

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.teacher = deepcopy(self.ema.ema_model.module)

    def note(self, head, args, logits):
        self.logits = logits.detach().clone()

    def compute(self, model, args, kwargs, losses):
        if kwargs['mode'] != 'loss':
            return
        teacher = self.ema.ema_model.module
        state = teacher.state_dict()
        for key, value in self.teacher.state_dict().items():
            assert value.equal(state[key])  # the mean of batch norms, too
        with torch.no_grad():
            target = self.teacher.eval()(kwargs['inputs'], mode='tensor')
        target, logits = target.double(), self.logits.double()
        rows = target.softmax(1) * logits.softmax(1).log()
        self.expected[self.runner.iter] = -rows.sum(1).mean()

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.losses[runner.iter] = outputs

    def after_train(self, runner):
        for handle in self.handles:
            handle.remove()
        model = getattr(runner.model, 'module', runner.model)
        for module in (model, model.head):
            assert not module._forward_hooks


def loader():
    return dict(
        batch_size=4,
        dataset=Images(),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )


def runner(tmp_path, model=None, hooks=None, loop=None, **settings):
    """A run of 8 steps on 16 images."""
    if hooks is None:
        hooks = [
            dict(type='EMAHook', momentum=0.1, update_buffers=True),
            dict(type='mmssm.engine.MESAHook', weight=1.5),
        ]
    if model is None:
        model = classifier()
    settings.setdefault(
        'optim_wrapper', dict(optimizer=dict(type='SGD', lr=0.1))
    )
    recorder = Recorder()
    run = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=loader(),
        train_cfg=loop or dict(by_epoch=True, max_epochs=2),
        custom_hooks=[*hooks, recorder],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        log_level='ERROR',
        **settings,
    )
    return run, recorder


def check(recorder, weight, steps, rel=1e-4):
    assert recorder.losses
    for step, losses in recorder.losses.items():
        assert ('loss_mesa' in losses) == (step in steps)
        if step in steps:
            expected = weight * recorder.expected[step].item()
            assert losses['loss_mesa'].item() == pytest.approx(
                expected, rel, abs=1e-5
            )


def test_formula():
    logits = torch.tensor([[1.0, 2.0], [0.5, -0.5]], requires_grad=True)
    target = torch.tensor([[0.0, 1.0], [3.0, 3.0]], requires_grad=True)
    e = torch.tensor(1.0).exp()
    shares = torch.tensor([[1 / (1 + e), e / (1 + e)], [0.5, 0.5]])
    # -log softmax is log(1 + e) and log(1 + 1 / e) where the gap is 1.
    near, far = (1 + 1 / e).log(), (1 + e).log()
    costs = torch.tensor([[far, near], [near, far]])
    loss = soft_cross_entropy(logits, target)
    torch.testing.assert_close(loss, (shares * costs).sum(1).mean())
    loss.backward()
    torch.testing.assert_close(
        logits.grad, (logits.softmax(1) - shares).detach() / 2
    )
    assert target.grad is None


def test_formula_in_half_precision():
    logits, target = torch.randn(2, 4, 1000).half() * 5
    loss = soft_cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    exact = soft_cross_entropy(logits.double(), target.double())
    torch.testing.assert_close(loss, exact, check_dtype=False)


@pytest.mark.parametrize(
    'loop',
    [
        dict(by_epoch=True, max_epochs=2),
        dict(by_epoch=False, max_iters=8),
    ],
    ids=['epochs', 'iterations'],
)
def test_loss_from_a_quarter_of_the_training_on(tmp_path, loop):
    run, recorder = runner(tmp_path, loop=loop)
    run.train()
    assert len(recorder.losses) == 8
    check(recorder, 1.5, steps=range(2, 8))
    assert not any(p.requires_grad for p in recorder.teacher.parameters())


@pytest.mark.parametrize(('begin', 'first'), [(0.0, 1), (0.5, 4), (0.6, 5)])
def test_begin(tmp_path, begin, first):
    """Never at the first step: before it there is no mean."""
    mesa = dict(type='mmssm.engine.MESAHook', begin=begin)
    ema = dict(type='EMAHook', momentum=0.1)
    # In either order.
    for i, hooks in enumerate(([ema, mesa], [mesa, ema])):
        run, recorder = runner(tmp_path / str(i), hooks=hooks)
        run.train()
        check(recorder, 1.0, steps=range(first, 8))


def test_loss_reaches_the_optimizer(tmp_path):
    """The model follows the gradient of the sum, accumulated too."""
    ema = dict(type='EMAHook', momentum=0.1)
    mesa = dict(type='mmssm.engine.MESAHook', weight=2.0, begin=0.0)
    steps = []

    class Gradients(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.weight = runner.model.head.fc.weight.detach().clone()

        def after_train_iter(self, runner, *args, **kwargs):
            steps.append(runner.model.head.fc.weight - self.weight)

    for hooks in ([ema], [ema, mesa]):
        run, _ = runner(
            tmp_path / str(len(hooks)),
            model=classifier(augments=False),
            hooks=[*hooks, Gradients()],
            loop=dict(by_epoch=False, max_iters=4),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2
            ),
        )
        run.train()
    plain, with_mesa = torch.stack(steps[:4]), torch.stack(steps[4:])
    assert (with_mesa[[0, 2]] == 0).all()
    assert (with_mesa[[1, 3]] != 0).any((1, 2)).all()
    assert not torch.allclose(plain[1], with_mesa[1], rtol=0.01)


def test_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    model = classifier(drop_path_rate=0.0, augments=False)
    whole, recorder = runner(tmp_path, deepcopy(model))
    whole.train()
    rest, resumed = runner(
        tmp_path / 'rest',
        deepcopy(model),
        load_from=str(tmp_path / 'epoch_1.pth'),
        resume=True,
    )
    rest.train()
    assert list(resumed.losses) == [4, 5, 6, 7]
    check(resumed, 1.5, steps=range(4, 8))
    for step, losses in resumed.losses.items():
        for name in ('loss', 'loss_mesa'):
            assert losses[name].item() == pytest.approx(
                recorder.losses[step][name].item(), 1e-4
            )


def test_in_distributed_data_parallel(tmp_path):
    distributed.init_process_group(
        'gloo', f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        assert is_distributed()
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(classifier())
        run, recorder = runner(
            tmp_path, MMDistributedDataParallel(model, device_ids=None)
        )
        run.train()
    finally:
        distributed.destroy_process_group()
    check(recorder, 1.5, steps=range(2, 8))


def test_under_autocast(tmp_path, monkeypatch):
    original = BaseModel._run_forward

    def in_bfloat16(*args, **kwargs):
        with torch.autocast('cpu', torch.bfloat16):
            return original(*args, **kwargs)

    monkeypatch.setattr(BaseModel, '_run_forward', in_bfloat16)
    run, recorder = runner(tmp_path)
    run.train()
    assert recorder.logits.dtype == torch.bfloat16
    assert recorder.losses[7]['loss_mesa'].dtype == torch.float32
    check(recorder, 1.5, steps=range(2, 8), rel=0.02)


def test_validation_and_checkpoints_are_as_without(tmp_path):
    run, recorder = runner(
        tmp_path,
        val_dataloader=loader(),
        val_cfg=dict(),
        val_evaluator=dict(type='Accuracy'),
    )
    calls = []

    class Calls(Hook):
        def before_train(self, runner):
            teacher = recorder.ema.ema_model.module

            def note(module, *_):
                if module is teacher:  # and not the recorder's copy
                    calls.append(runner.iter)

            teacher.register_forward_hook(note)

    run.register_hook(Calls(), priority='LOWEST')
    run.train()
    assert calls == [2, 3, 4, 5, 6, 7]
    state = load_file(tmp_path / 'epoch_2.pth')['state_dict']
    mean = recorder.ema.ema_model.module.state_dict()
    assert state.keys() == mean.keys() == run.model.state_dict().keys()
    for key, value in state.items():
        assert value.equal(mean[key])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(weight=0), 'weight must be above 0, got 0'),
        (dict(weight=float('nan')), 'weight must be above 0, got nan'),
        (dict(begin=1), 'share of the training, from 0 to below 1, got 1'),
        (dict(begin=-0.1), 'got -0.1'),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        MESAHook(**settings)


def test_without_a_mean(tmp_path):
    run, _ = runner(tmp_path, hooks=[MESAHook()])
    with pytest.raises(ConfigError, match="add dict\\(type='EMAHook'"):
        run.train()


class NoLogits(BaseModel):
    """A model with or without a head, which gives no tensor."""

    def __init__(self, head):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        if head == 'dict':
            self.head = Pair()

    def forward(self, inputs, data_samples, mode):
        loss = self.layer(torch.ones(1, 1)).mean()
        if hasattr(self, 'head'):
            loss = self.head(loss)['score']
        return dict(loss=loss)


class Pair(nn.Module):
    def forward(self, x):
        return dict(score=x)


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (None, 'NoLogits has no module of the name head'),
        ('dict', 'NoLogits has a head that gives a dict'),
    ],
)
def test_model_without_logits(tmp_path, head, message):
    ema = dict(type='EMAHook')
    run, recorder = runner(tmp_path, NoLogits(head), hooks=[ema, MESAHook()])
    run._hooks.remove(recorder)
    with pytest.raises(ConfigError, match=message):
        run.train()
    assert run.iter == 0
