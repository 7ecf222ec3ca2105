"""The search's file in real runs of a small supernet."""

import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from torch import distributed, nn
from torch.utils.data import Dataset

from mmssm import LocalVim, LocalVMamba
from mmssm.backbones.directions import CANDIDATES
from mmssm.engine import DirectionSearchHook
from mmssm.engine.hooks import direction_search_hook as hook_module
from mmssm.engine.hooks.direction_search_hook import read_records, summary
from mmssm.layers.route_merge import SearchedSum
from mmssm.utils import ConfigError

BATCHES = 4  # in an epoch


class Numbers(Dataset):
    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        return dict(x=torch.full((8, 3, 8), float(index)))


class Supernet(BaseModel):
    """Three blocks of a search, and nothing else."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(SearchedSum(8, 8) for _ in range(3))

    def forward(self, x, mode='tensor'):
        x = x + torch.arange(8.0).view(8, 1, 1) * torch.randn(8)
        return dict(loss=sum(block(x)[..., 0].mean() for block in self.blocks))


class Recorder(Hook):
    """The probabilities after every iteration."""

    def __init__(self):
        self.seen = {}

    def before_train(self, runner):
        self.note(runner, runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.note(runner, runner.iter + 1)

    def note(self, runner, iteration):
        shares = [
            module.weights.detach().softmax(0)
            for module in runner.model.modules()
            if hasattr(module, 'weights')
        ]
        self.seen[iteration] = torch.stack(shares)


def runner(tmp_path, hook=None, model=None, loop=None, **settings):
    recorder = Recorder()
    run = Runner(
        model=model or Supernet(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=1,
            dataset=Numbers(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=loop or dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        custom_hooks=[
            hook or dict(type='mmssm.engine.DirectionSearchHook', interval=3),
            recorder,
        ],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        default_scope='mmengine',
        randomness=dict(seed=0),
        log_level='INFO',
        **settings,
    )
    return run, recorder


def lines(folder, name='directions.jsonl'):
    text = (folder / name).read_text()
    assert text.endswith('\n')
    return [json.loads(line) for line in text.splitlines()]


def check(records, recorder):
    """The records are what the model had."""
    for record in records:
        assert record['candidates'] == list(CANDIDATES)
        found = torch.tensor(record['probabilities'])
        torch.testing.assert_close(found, recorder.seen[record['iter']])


def steps(records):
    return [record['iter'] for record in records]


@pytest.mark.parametrize(
    ('loop', 'epochs'),
    [
        (dict(by_epoch=True, max_epochs=2), [0, 0, 1, 2]),
        (dict(by_epoch=False, max_iters=8), [0, 0, 0, 1]),
    ],
    ids=['epochs', 'iterations'],
)
def test_start_every_interval_and_end(tmp_path, loop, epochs):
    run, recorder = runner(tmp_path, loop=loop)
    run.train()
    records = lines(tmp_path)
    assert steps(records) == [0, 3, 6, 8]
    assert [record['epoch'] for record in records] == epochs
    check(records, recorder)
    first, last = records[0]['probabilities'], records[-1]['probabilities']
    assert len(first) == 3 and len(first[0]) == 8
    assert abs(first[0][0] - last[0][0]) > 1e-4  # it learned


def test_end_is_not_written_twice(tmp_path):
    hook = DirectionSearchHook(interval=4, out_file='search.jsonl')
    run, _ = runner(tmp_path, hook)
    run.train()
    assert steps(lines(tmp_path, 'search.jsonl')) == [0, 4, 8]


def test_every_line_is_in_the_log(tmp_path):
    run, _ = runner(tmp_path)
    run.train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    found = [line for line in log.splitlines() if 'Direction search' in line]
    assert [line.split('iteration ')[1].split(':')[0] for line in found] == [
        '0',
        '3',
        '6',
        '8',
    ]


def test_summary():
    even = torch.full((1, 8), 1 / 8, dtype=torch.double)
    even[0, 2] += 1e-9
    certain = torch.eye(8).double()[[1, 1, 7]]
    assert summary(torch.cat([certain, even])) == (
        "entropy 0.2500 of an even choice's; likeliest of 4 blocks: h_flip "
        'in 2, w7_flip in 1, v in 1'
    )


def test_resumed_run_goes_on_with_the_file(tmp_path):
    run, recorder = runner(tmp_path)
    run.train()
    whole = lines(tmp_path)
    # Killed in the second epoch, while it wrote a line.
    path = tmp_path / 'directions.jsonl'
    kept = [json.dumps(record) for record in whole[:3]]
    stale = json.dumps(dict(whole[2], iter=7))
    path.write_text('\n'.join([*kept, stale, '{"iter": 7, "epo']))
    rest, resumed = runner(
        tmp_path, load_from=str(tmp_path / 'epoch_1.pth'), resume=True
    )
    rest.train()
    records = lines(tmp_path)
    assert steps(records) == [0, 3, 6, 8]
    assert records[:2] == whole[:2]
    check(records[:2], recorder)
    check(records[2:], resumed)


def test_finished_run_resumed(tmp_path):
    run, _ = runner(tmp_path)
    run.train()
    before = lines(tmp_path)
    rest, _ = runner(
        tmp_path, load_from=str(tmp_path / 'epoch_2.pth'), resume=True
    )
    rest.train()
    assert lines(tmp_path) == before


def test_prolonged_run_keeps_its_former_end(tmp_path):
    run, _ = runner(tmp_path)
    run.train()
    before = lines(tmp_path)
    rest, _ = runner(
        tmp_path,
        loop=dict(by_epoch=True, max_epochs=3),
        load_from=str(tmp_path / 'epoch_2.pth'),
        resume=True,
    )
    rest.train()
    records = lines(tmp_path)
    assert records[:4] == before
    assert steps(records) == [0, 3, 6, 8, 9, 12]


def test_resumed_elsewhere(tmp_path):
    run, _ = runner(tmp_path / 'old')
    run.train()
    rest, resumed = runner(
        tmp_path / 'new',
        load_from=str(tmp_path / 'old' / 'epoch_1.pth'),
        resume=True,
    )
    rest.train()
    records = lines(tmp_path / 'new')
    assert steps(records) == [4, 6, 8]
    check(records, resumed)


def test_fresh_run_starts_anew(tmp_path):
    even = dict(iter=0, epoch=0, probabilities=[[1 / 8] * 8] * 3)
    old = json.dumps(dict(even, candidates=CANDIDATES))
    (tmp_path / 'directions.jsonl').write_text(f'{old}\nof another search\n')
    run, recorder = runner(tmp_path)
    run.train()
    records = lines(tmp_path)
    assert steps(records) == [0, 3, 6, 8]
    check(records, recorder)
    assert not list(tmp_path.glob('.*tmp'))


def test_damaged_file_is_left_alone(tmp_path):
    run, _ = runner(tmp_path)
    run.train()
    path = tmp_path / 'directions.jsonl'
    text = path.read_text().replace('"iter": 3', '"time": 3')
    path.write_text(text)
    rest, _ = runner(
        tmp_path, load_from=str(tmp_path / 'epoch_1.pth'), resume=True
    )
    with pytest.raises(ConfigError, match='line 2 has no "iter".*move it aw'):
        rest.train()
    assert path.read_text() == text
    assert rest.iter == BATCHES


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(hook_module, 'is_main_process', lambda: False)
    run, _ = runner(tmp_path)
    run.train()
    assert run.iter == 2 * BATCHES
    assert not (tmp_path / 'directions.jsonl').exists()


class Classifier(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x, mode='tensor'):
        image = x.mean() + torch.randn(1, 3, 32, 32)
        return dict(loss=self.backbone(image)[0].square().mean())


MODELS = [
    (LocalVMamba, dict(embed_dims=8, depths=(1, 1, 2, 1), d_state=1), 5),
    (LocalVim, dict(embed_dims=16, depth=2, d_state=1), 2),
]


@pytest.mark.parametrize(
    ('kind', 'arch', 'blocks'), MODELS, ids=['local-vmamba', 'local-vim']
)
def test_backbones_in_distributed_data_parallel(tmp_path, kind, arch, blocks):
    model = Classifier(kind(arch, directions='search'))
    distributed.init_process_group(
        'gloo', f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        run, recorder = runner(
            tmp_path, model=MMDistributedDataParallel(model, device_ids=None)
        )
        run.train()
    finally:
        distributed.destroy_process_group()
    records = lines(tmp_path)
    assert steps(records) == [0, 3, 6, 8]
    assert len(records[0]['probabilities']) == blocks
    check(records, recorder)


def test_model_that_is_no_supernet(tmp_path):
    arch = dict(embed_dims=16, depth=2, directions=['h v', 'w2 w7'])
    run, _ = runner(tmp_path, model=Classifier(LocalVim(arch)))
    with pytest.raises(ConfigError, match="backbone.directions='search'"):
        run.train()
    assert run.iter == 0
    assert not (tmp_path / 'directions.jsonl').exists()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(interval=0), 'at least 1, got 0'),
        (dict(interval=2.5), 'at least 1, got 2.5'),
        (dict(out_file='search.txt'), "must end in .jsonl, got 'search.txt'"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(ConfigError, match=message):
        DirectionSearchHook(**settings)


def test_read_records_of_a_foreign_file(tmp_path):
    path = tmp_path / 'x.jsonl'
    for text in ('[1]\n', '{"iter": 1}\n', '{"iter": 1, "probabilities": 2}'):
        path.write_text(text)
        with pytest.raises(ValueError, match='x.jsonl is not the file of'):
            read_records(path)
