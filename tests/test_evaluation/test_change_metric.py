"""The scores of change detection, against scikit-learn's."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmseg.structures import SegDataSample
from sklearn import metrics

from mmssm.evaluation import ChangeMetric
from mmssm.evaluation.change_metric import count_changes, score_changes

NAMES = ['precision', 'recall', 'F1', 'IoU', 'OA', 'kappa']


def evaluate(predictions, truths, **kwargs):
    metric = ChangeMetric(**kwargs)
    samples = [
        dict(
            img_path=f'{number}.png',
            pred_sem_seg=dict(data=torch.as_tensor(prediction)[None]),
            gt_sem_seg=dict(data=torch.as_tensor(truth)[None]),
        )
        for number, (prediction, truth) in enumerate(zip(predictions, truths))
    ]
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


def scikit_learn(predictions, truths):
    predicted, true = (
        np.concatenate([np.ravel(part) for part in parts])
        for parts in (predictions, truths)
    )
    predicted, true = predicted[true != 255], true[true != 255]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about scores without a value
        return dict(
            precision=metrics.precision_score(true, predicted),
            recall=metrics.recall_score(true, predicted),
            F1=metrics.f1_score(true, predicted),
            IoU=metrics.jaccard_score(true, predicted),
            OA=metrics.accuracy_score(true, predicted),
            kappa=metrics.cohen_kappa_score(true, predicted, labels=[0, 1]),
        )


def draw(seed, share_changed, share_wrong, share_ignored):
    """Masks of three images of different sizes."""
    rng = np.random.default_rng(seed)
    predictions, truths = [], []
    for size in ((30, 41), (17, 5), (64, 64)):
        truth = (rng.random(size) < share_changed).astype(np.int64)
        predictions.append(truth ^ (rng.random(size) < share_wrong))
        truths.append(np.where(rng.random(size) < share_ignored, 255, truth))
    return predictions, truths


@pytest.mark.parametrize(
    'shares',
    [
        (0.5, 0.5, 0.0),
        (0.04, 0.02, 0.0),
        (0.2, 0.1, 0.3),
        (0.9, 0.3, 0.1),
        (0.3, 1.0, 0.0),  # all wrong: kappa below 0
        (0.3, 0.0, 0.5),  # all right
    ],
)
@pytest.mark.parametrize('seed', range(4))
def test_scores_are_those_of_scikit_learn(seed, shares):
    predictions, truths = draw(seed, *shares)
    scores = evaluate(predictions, truths)
    assert list(scores) == NAMES
    assert scores == pytest.approx(
        scikit_learn(predictions, truths), abs=1e-12
    )


@pytest.mark.parametrize('predicted', [0, 1])
@pytest.mark.parametrize('true', [0, 1])
def test_one_class_alone_scores_as_in_scikit_learn(predicted, true):
    predictions, truths = [np.full((4, 6), predicted)], [np.full((4, 6), true)]
    scores = evaluate(predictions, truths)
    expected = scikit_learn(predictions, truths)
    assert scores == pytest.approx(expected, nan_ok=True)
    assert math.isnan(scores['kappa']) == (predicted == true)


def test_no_pixel_that_counts():
    scores = evaluate([np.ones((4, 6))], [np.full((4, 6), 255)])
    assert [scores[name] for name in NAMES[:4]] == [0, 0, 0, 0]
    assert math.isnan(scores['OA']) and math.isnan(scores['kappa'])


def test_scores_in_small_numbers():
    scores = score_changes(
        true_unchanged=5, false_changed=1, false_unchanged=2, true_changed=2
    )
    assert scores == pytest.approx(
        dict(
            precision=2 / 3,
            recall=2 / 4,
            F1=4 / 7,
            IoU=2 / 5,
            OA=7 / 10,
            # Chance agrees on 0.4 * 0.3 + 0.6 * 0.7 of the pixels.
            kappa=(0.7 - 0.54) / (1 - 0.54),
        )
    )


def test_counts_beyond_single_precision():
    """A real test set: 348 images of 1024 x 1024 pixels."""
    scores = score_changes(350_000_000, 2_000_001, 1_000_000, 11_903_247)
    assert scores['precision'] == 11_903_247 / 13_903_248
    kappa = 2 * (11_903_247 * 350_000_000 - 2_000_001 * 1_000_000)
    kappa /= 13_903_248 * 352_000_001 + 12_903_247 * 351_000_000
    assert scores['kappa'] == kappa


def test_other_index_is_ignored():
    truth = np.array([[0, 1, 7, 7]])
    prediction = np.array([[0, 1, 1, 0]])
    assert evaluate([prediction], [truth], ignore_index=7)['F1'] == 1
    tensors = torch.as_tensor(prediction), torch.as_tensor(truth)
    assert count_changes(*tensors, ignore_index=7) == (1, 0, 0, 1)


@pytest.mark.parametrize(
    ('prediction', 'truth'),
    [([[0, 2]], [[0, 1]]), ([[0, 1]], [[0, 2]]), ([[0, 255]], [[0, 1]])],
)
def test_other_class_is_refused(prediction, truth):
    with pytest.raises(ValueError, match=r'^0\.png: .*other classes'):
        evaluate([prediction], [truth])
    # Where the truth is ignored, the prediction does not matter.
    evaluate([[[0, 2]]], [[[0, 255]]])


def test_prediction_of_another_size_is_refused():
    right, wrong = np.zeros((4, 6), int), np.zeros((4, 5), int)
    with pytest.raises(ValueError) as caught:
        evaluate([right, wrong], [right, right])
    message = '1.png: the prediction has 4 x 5 pixels, the truth 4 x 6; '
    assert str(caught.value).startswith(message)


def test_a_batch_gives_one_result_for_each_pair():
    """Several processes keep as many results as there are pairs."""
    metric = ChangeMetric()
    masks = [torch.ones(1, 2, 3, dtype=int) * (i % 2) for i in range(3)]
    metric.process(
        {},
        [
            dict(
                img_path='a.png',
                gt_sem_seg=dict(data=m),
                pred_sem_seg=dict(data=m),
            )
            for m in masks
        ],
    )
    assert metric.results == [(6, 0, 0, 0), (0, 0, 0, 6), (6, 0, 0, 0)]


@pytest.mark.parametrize('size', [(1, 7), (7, 1), (1, 1)])
def test_one_row_or_column_of_pixels(size):
    mask = (np.arange(max(size)) % 2).reshape(size)
    assert evaluate([mask], [mask])['OA'] == 1


def test_metric_in_an_evaluator(tmp_path):
    """As a config names it, with mmseg's samples and a table in the log."""
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.structures import PixelData

    log = tmp_path / 'log.txt'
    name = f'change metric {tmp_path}'
    MMLogger.get_instance(name, log_file=str(log))
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.tensor([[[0, 1, 1, 0]]])),
        pred_sem_seg=PixelData(data=torch.tensor([[[0, 1, 0, 0]]])),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        evaluator = Evaluator([dict(type='ChangeMetric', prefix='test')])
    evaluator.process([sample])
    scores = evaluator.evaluate(1)
    assert list(scores) == [f'test/{name}' for name in NAMES]
    assert scores['test/recall'] == 0.5
    titles, values = Path(log).read_text().splitlines()[-2:]
    assert titles.split() == NAMES
    assert values.split() == [f'{value:.4f}' for value in scores.values()]
