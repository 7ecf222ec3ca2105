"""Metrics of change detection."""

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmengine.registry import METRICS
from torch import Tensor

from mmssm.utils import UserError

Counts = tuple[int, int, int, int]


@METRICS.register_module()
class ChangeMetric(BaseMetric):
    """Precision, recall, F1 and IoU of the changed class, OA and kappa.

    All six are computed from one confusion matrix of all pixels of the
    dataset. They are from 0 to 1 (kappa: from -1), see :func:`score_changes`.
    To keep the best checkpoint as ChangeMamba does, set the checkpoint hook's
    ``save_best='kappa', rule='greater'``.

    Args:
        ignore_index (int): The label of pixels to ignore. Defaults to 255.
        collect_device (str): The device on which results of several processes
            are collected, ``'cpu'`` or ``'gpu'``. Defaults to ``'cpu'``.
        prefix (str, optional): Prefix of the metrics' names. Defaults to
            None.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch of predictions.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): SegDataSamples as dicts, with
                ``pred_sem_seg`` and ``gt_sem_seg``, (1, H, W) or (H, W).

        Raises:
            UserError: A prediction and its truth differ in size, or one of
                them has a class other than 0 and 1; the message names the
                image.
        """
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data']
            truth = sample['gt_sem_seg']['data'].to(prediction.device)
            size, true_size = prediction.shape[-2:], truth.shape[-2:]
            name = sample.get('img_path', 'an image')
            if size != true_size:
                raise UserError(
                    f'{name}: the prediction has {size[0]} x {size[1]} '
                    f'pixels, the truth {true_size[0]} x {true_size[1]}; load '
                    'labels after Resize in the test pipeline'
                )
            counts = count_changes(
                prediction.reshape(size),
                truth.reshape(size),
                self.ignore_index,
            )
            if counts is None:
                raise UserError(
                    f'{name}: its prediction or its truth has other classes '
                    f'than 0 unchanged, 1 changed and {self.ignore_index} '
                    'ignored (truth only)'
                )
            self.results.append(counts)

    def compute_metrics(self, results: list[Counts]) -> dict[str, float]:
        """Sum up the counts, print a table and return the metrics."""
        totals = [sum(counts[i] for counts in results) for i in range(4)]
        scores = score_changes(*totals)
        logger = MMLogger.get_current_instance()
        names = ''.join(f'{name:>11}' for name in scores)
        values = ''.join(f'{value:>11.4f}' for value in scores.values())
        print_log(f'\n{names}\n{values}', logger=logger)
        return scores


def count_changes(
    prediction: Tensor, truth: Tensor, ignore_index: int = 255
) -> Counts | None:
    """The confusion matrix of one image.

    Args:
        prediction (Tensor): (H, W) of any number type, 0 unchanged and 1
            changed.
        truth (Tensor): (H, W), likewise, or ``ignore_index``.
        ignore_index (int): The label of pixels to ignore.

    Returns:
        tuple[int, int, int, int]: The number of true negatives (unchanged),
        false positives, false negatives and true positives (changed). None if
        a pixel that is not ignored has another class.
    """
    matrix = [
        int(((truth == true) & (prediction == predicted)).sum())
        for true in (0, 1)
        for predicted in (0, 1)
    ]
    counted = int((truth != ignore_index).sum())
    return tuple(matrix) if sum(matrix) == counted else None


def score_changes(
    true_unchanged: int,
    false_changed: int,
    false_unchanged: int,
    true_changed: int,
) -> dict[str, float]:
    """Compute the scores of a confusion matrix.

    Undefined scores are as in scikit-learn: ``precision``, ``recall``, ``F1``
    and ``IoU`` are 0 if they would divide by zero, for example if nothing
    changed and nothing was predicted as changed; ``kappa`` is nan if all
    pixels are correct and of one class, ``OA`` is nan if there is no pixel.

    Args:
        true_unchanged (int): Unchanged pixels predicted as unchanged.
        false_changed (int): Unchanged pixels predicted as changed.
        false_unchanged (int): Changed pixels predicted as unchanged.
        true_changed (int): Changed pixels predicted as changed.

    Returns:
        dict[str, float]: ``precision``, ``recall``, ``F1`` and ``IoU`` of
        the changed class, ``OA`` (the share of correct pixels) and
        Cohen's ``kappa``.
    """
    tn, fp, fn, tp = (
        true_unchanged,
        false_changed,
        false_unchanged,
        true_changed,
    )
    nan = float('nan')
    # Agreement beyond chance, and the largest possible one, in pixels squared.
    beyond = 2 * (tp * tn - fp * fn)
    possible = (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
    return dict(
        precision=_divide(tp, tp + fp, 0.0),
        recall=_divide(tp, tp + fn, 0.0),
        F1=_divide(2 * tp, 2 * tp + fp + fn, 0.0),
        IoU=_divide(tp, tp + fp + fn, 0.0),
        OA=_divide(tp + tn, tp + tn + fp + fn, nan),
        kappa=_divide(beyond, possible, nan),
    )


def _divide(part: int, whole: int, otherwise: float) -> float:
    return part / whole if whole else otherwise
