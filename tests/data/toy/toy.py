"""A task small enough to train in a second: a line through points."""

import os
import time

import torch
from mmcv.cnn import build_norm_layer
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch.utils.data import Dataset


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, width=1, **kwargs):
        super().__init__(**kwargs)
        self.linear = torch.nn.Linear(1, width)

    def forward(self, x, y, mode='tensor'):
        # ``pace`` slows an iteration down, so that a kill can hit one.
        time.sleep(float(os.environ.get('TOY_PACE', 0)))
        error = (self.linear(x).sum(1, keepdim=True) - y) ** 2
        if mode == 'loss':
            return dict(loss=error.mean())
        return list(error)


@MODELS.register_module()
class ToyNormModel(ToyModel):
    def __init__(self, norm_cfg, **kwargs):
        super().__init__(width=2, **kwargs)
        self.norm = build_norm_layer(norm_cfg, 2)[1]

    def forward(self, x, y, mode='tensor'):
        features = self.norm(self.linear(x)[:, :, None, None])
        error = (features.flatten(1).sum(1, keepdim=True) - y) ** 2
        return dict(loss=error.mean()) if mode == 'loss' else list(error)


@DATASETS.register_module()
class ToyDataset(Dataset):
    def __init__(self, length=20):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index >= self.length:
            raise IndexError
        x = torch.tensor([index / self.length])
        return dict(x=x, y=3 * x + 1)


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(float(error) for error in data_samples)

    def compute_metrics(self, results):
        return dict(error=sum(results) / len(results), count=len(results))
