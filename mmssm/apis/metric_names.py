"""The names of the metrics that a config's evaluators give."""

from collections.abc import Callable, Sequence

from mmengine.config import Config
from mmengine.registry import METRICS

from mmssm.evaluation.change_metric import score_changes
from mmssm.utils.config import metrics_of, registered, type_name

_COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_IOU_NAMES = dict(
    mIoU=('mIoU', 'mAcc'),
    mDice=('mDice', 'mAcc'),
    mFscore=('mFscore', 'mPrecision', 'mRecall'),
)


class MetricNames:
    """The names of the metrics of a split, as far as the config tells them.

    Args:
        cfg (Config): The config.
        split (str): ``'val'`` or ``'test'``.

    Attributes:
        known (list[str]): The names, with their prefixes.
        open_prefixes (list[str]): How the other names start, such as
            ``'lvis/'``; ``''`` if nothing is known of them.
    """

    def __init__(self, cfg: Config, split: str) -> None:
        self.known: list[str] = []
        self.open_prefixes: list[str] = []
        scope = cfg.get('default_scope')
        if _adds_prefixes(cfg, split):
            self.open_prefixes.append('')
        for metric in metrics_of(cfg, split):
            kind = registered(METRICS, metric, scope)
            prefix = metric.get('prefix') or getattr(
                kind, 'default_prefix', None
            )
            prefix = f'{prefix}/' if prefix else ''
            names = _names_of(kind, metric)
            if names is None:
                self.open_prefixes.append(prefix)
            else:
                self.known += [prefix + name for name in names]

    def may_have(self, name: str) -> bool:
        """Whether a metric of this name is given, or may be."""
        return name in self.known or any(
            name.startswith(prefix) for prefix in self.open_prefixes
        )


def _adds_prefixes(cfg: Config, split: str) -> bool:
    """Whether names may get a prefix that no metric has.

    MMDetection's MultiDatasetsEvaluator adds one for each dataset, its
    TeacherStudentValLoop one for each model.
    """
    loop, evaluator = cfg.get(f'{split}_cfg'), cfg.get(f'{split}_evaluator')
    return any(
        isinstance(part, dict)
        and part.get('type')
        and key in part
        and type_name(part['type']) not in ('Evaluator', 'ValLoop', 'TestLoop')
        for part, key in ((loop, 'type'), (evaluator, 'metrics'))
    )


def is_top_k(kind: type | None) -> bool:
    """Whether a metric's class is mmpretrain's Accuracy."""
    return _NAMES.get(_path(kind)) is _names_of_accuracy


def _path(kind: type | None) -> str:
    return f'{kind.__module__}.{kind.__name__}' if kind else ''


def _names_of(kind: type | None, metric: dict) -> list[str] | None:
    """The names without prefix; None where they are not known."""
    function = _NAMES.get(_path(kind))
    return None if function is None else function(metric)


def _as_list(value: object) -> Sequence:
    return value if isinstance(value, (list, tuple)) else [value]


def _names_of_coco(metric: dict) -> list[str] | None:
    kinds = _as_list(metric.get('metric', 'bbox'))
    if not {'bbox', 'segm'} >= set(kinds) or metric.get('classwise'):
        return None
    items = metric.get('metric_items') or _COCO_ITEMS
    return [f'{kind}_{item}' for kind in kinds for item in items]


def _names_of_iou(metric: dict) -> list[str] | None:
    kinds = _as_list(metric.get('iou_metrics', 'mIoU'))
    if not set(_IOU_NAMES) >= set(kinds):
        return None
    names = [name for kind in kinds for name in _IOU_NAMES[kind]]
    return ['aAcc', *dict.fromkeys(names)]


def _names_of_accuracy(metric: dict) -> list[str] | None:
    if len(_as_list(metric.get('thrs', 0.0))) > 1:
        return None
    return [f'top{k}' for k in _as_list(metric.get('topk', 1))]


def _names_of_changes(metric: dict) -> list[str]:
    return list(score_changes(0, 0, 0, 0))


_NAMES: dict[str, Callable[[dict], list[str] | None]] = {
    'mmdet.evaluation.metrics.coco_metric.CocoMetric': _names_of_coco,
    'mmseg.evaluation.metrics.iou_metric.IoUMetric': _names_of_iou,
    'mmpretrain.evaluation.metrics.single_label.Accuracy': _names_of_accuracy,
    'mmssm.evaluation.change_metric.ChangeMetric': _names_of_changes,
}
