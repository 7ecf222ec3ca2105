"""The base class of tasks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import nn

from mmssm.checkpoint.strict_load import load_exactly
from mmssm.layers.packed import optimize_for_inference
from mmssm.utils import ConfigError
from mmssm.visualization.palette import Classes

from ..classes import check_count, find_palette
from ..images import read_image


@dataclass
class Prediction:
    """The prediction of a model for an image.

    Attributes:
        record (dict): The task's part of the JSON file.
        picture (Image.Image | None): The image with what was found; None for
            a window of a larger image.
        label_map (np.ndarray | None): (H, W) uint8 or uint16, for
            segmentation and change detection.
    """

    record: dict
    picture: Image.Image | None
    label_map: np.ndarray | None = None


Predictor = Callable[[np.ndarray], Prediction]
# Images with the data samples of a model's ``test_step``.
Results = Iterable[tuple[np.ndarray, BaseDataElement]]


class Task:
    """The interface of a task; each task is a subclass.

    The base class is for configs of other libraries, which can only be
    trained and evaluated.

    Attributes:
        name (str): The task.
        model (str): A model of the task, for messages.
        truth, prediction (str): The fields of a data sample.
        default_num (int): How many test images a picture of predictions
            shows.
        takes_pairs (bool): Whether an input is two images.
    """

    name: ClassVar[str] = 'another task'
    model: ClassVar[str] = 'another model'
    truth: ClassVar[str] = ''
    prediction: ClassVar[str] = ''
    default_num: ClassVar[int] = 8
    takes_pairs: ClassVar[bool] = False

    def check_test_set(self, cfg: Config) -> None:
        """Refuse a test set without the class names that the library needs.

        Raises:
            ConfigError: Says where to set the names or the palette.
        """

    def picture_hook(self, cfg: Config, folder: Path) -> Hook:
        """The hook that draws every image of a test.

        Args:
            cfg (Config): The config.
            folder (Path): Where the pictures go.

        Raises:
            ConfigError: The task has no such hook.
        """
        raise ConfigError(
            f'--show-dir: config {cfg.filename} is of {self.name}; set its '
            'default_hooks.visualization there'
        )

    def pack_prediction(self, sample: Any) -> Any:
        """What a file of predictions keeps of a data sample.

        Args:
            sample (Any): A dict, or what a model of another library gives.

        Returns:
            Any: Likewise, with tensors on the CPU. The base class keeps all.
        """
        return _copy_to_cpu(sample)

    def input_shape(self, cfg: Config) -> tuple[int, int]:
        """Height and width at which papers count FLOPs of this model."""
        raise NotImplementedError

    def prepare_count(
        self, model: nn.Module, shape: tuple[int, int]
    ) -> list[int]:
        """Change a model so that its forward pass needs only an image.

        Returns:
            list[int]: Empty; a forward pass of a two-stage detector appends
            the number of regions that reach its box head.
        """
        return []

    def read(self, paths: tuple[Path, ...]) -> np.ndarray:
        """Read an input image file, (H, W, 3) uint8, blue-green-red.

        A pair of files becomes (H, W, 6), red-green-blue of the earlier
        image, then of the later one.

        Raises:
            UnreadableImage: A file cannot be read.
        """
        return read_image(*paths)

    def read_test_image(self, info: dict) -> np.ndarray:
        """An image of a dataset, (H, W, 3) uint8, red-green-blue.

        A pair is (H, W, 6), the earlier image first.

        Args:
            info (dict): What the dataset's ``get_data_info`` returns.
        """
        if 'img' in info:  # small sets in memory, such as MNIST, which is gray
            image = np.asarray(info['img'])
            if image.ndim == 2:
                image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
            return image
        return mmcv.imread(info['img_path'], channel_order='rgb')

    def build_predictor(
        self,
        cfg: Config,
        checkpoint: dict,
        classes: Classes,
        device: torch.device,
        score_thr: float,
        optimize: str | None,
    ) -> Predictor:
        """Build and load a config's model, ready to predict.

        Call this method and the predictor in the config's default scope.

        Args:
            cfg (Config): As :func:`adapt_config` returns it.
            checkpoint (dict): The opened checkpoint.
            classes (Classes): The names and colors of the classes.
            device (torch.device): Where the model runs.
            score_thr (float): Detections with a lower score are left out.
            optimize (str, optional): The dtype for
                :func:`mmssm.optimize_for_inference`.

        Returns:
            Callable: Takes what :meth:`read` returns, returns a
            :class:`Prediction`.

        Raises:
            ConfigError: The model is of another task.
            CheckpointError: The checkpoint is of another model.
        """
        raise NotImplementedError

    def draw_results(
        self, results: Results, classes: Classes | None, score_thr: float
    ) -> Image.Image:
        """Draw the truth and the predictions of test images on one sheet.

        Args:
            results (Results): Images as of :meth:`read_test_image`.
            classes (Classes | None): None if the test set has no names.
            score_thr (float): Detections with a lower score are left out.
        """
        raise NotImplementedError

    def draw_truth(
        self, results: Results, classes: Classes | None
    ) -> Image.Image:
        """Draw the annotations of images on one sheet.

        Args:
            results (Results): Images with the samples of a pipeline.
            classes (Classes | None): None if the dataset has no names.

        Raises:
            ConfigError: The task has no such picture.
        """
        raise ConfigError(
            f'annotations for {self.name} are not drawn; give a config for '
            'detection, segmentation or classification'
        )

    def true_labels(self, info: dict) -> list[int]:
        """The labels in an image's annotations, as far as they are in memory.

        Args:
            info (dict): What the dataset's ``get_data_info`` returns.
        """
        return []

    def find_test_classes(self, cfg: Config, meta: dict) -> Classes | None:
        """The names and colors of a test set's classes.

        Args:
            cfg (Config): The config.
            meta (dict): The dataset's ``metainfo``.

        Raises:
            ConfigError: The test set has no names.
        """
        names = meta.get('classes')
        if names is None:
            raise ConfigError(
                f'the test set of config {cfg.filename} names no classes; set '
                'test_dataloader.dataset.metainfo.classes=("name", ...)'
            )
        return Classes(list(names), find_palette(cfg, names), 'the test set')

    def check_sample(self, sample: BaseDataElement, cfg: Config) -> None:
        """Refuse a data sample without a prediction or without a truth.

        Raises:
            ConfigError: Says which of the two is missing.
        """
        if self.prediction not in sample:
            raise ConfigError(
                f'{cfg.model.type} of config {cfg.filename} predicts no '
                f'{self.prediction}; give a detector, segmentor or classifier'
            )
        if not self.has_truth(sample):
            raise ConfigError(
                f'the test pipeline of config {cfg.filename} gives no '
                f'{self.truth} to draw beside the predictions; use a test '
                'set with annotations and load them'
            )

    def has_truth(self, sample: BaseDataElement) -> bool:
        """Whether a data sample has annotations."""
        return self.truth in sample

    def predicted(self, sample: BaseDataElement, model: nn.Module) -> Any:
        """The prediction in a data sample.

        Raises:
            ConfigError: There is none: the model is of another task.
        """
        if self.prediction not in sample:
            raise ConfigError(
                f'{type(model).__name__} is not {self.model}: its results '
                f'have no {self.prediction}'
            )
        return sample.get(self.prediction)


def load_model(
    model: nn.Module, checkpoint: dict, classes: Classes, optimize: str | None
) -> None:
    """Load a checkpoint that fits exactly, and prepare the model.

    Args:
        model (nn.Module): The model.
        checkpoint (dict): The opened checkpoint.
        classes (Classes): The names and colors of the classes.
        optimize (str, optional): The dtype for
            :func:`mmssm.optimize_for_inference`.
    """
    load_exactly(model, checkpoint)
    check_count(model, classes)
    if optimize is not None:
        model.eval()
        optimize_for_inference(model, dtype=getattr(torch, optimize))


def exact_inferencer(
    base: type,
    checkpoint: dict,
    classes: Classes,
    optimize: str | None,
    visualizer: Any = None,
) -> type:
    """Derive an inferencer that loads only a checkpoint that fits exactly.

    Args:
        base (type): The library's inferencer.
        checkpoint (dict): The opened checkpoint.
        classes (Classes): Given to the model, in place of mmengine's guess.
        optimize (str, optional): As for :func:`load_model`.
        visualizer (Any): For an inferencer that needs one.
    """

    class ExactInferencer(base):
        def _load_weights_to_model(self, model, _, cfg):
            load_model(model, checkpoint, classes, optimize)
            model.dataset_meta = dict(
                classes=classes.names, palette=classes.palette
            )

        def _init_collate(self, cfg):
            return pseudo_collate  # a dataloader's own may stack images

        def _init_visualizer(self, cfg):
            return visualizer

    return ExactInferencer


def _copy_to_cpu(data: Any) -> Any:
    """Copy tensors, also in dicts and sequences, to memory of their own.

    Pickling a part of a tensor, such as one row of a batch's scores, would
    write the whole tensor.
    """
    if isinstance(data, torch.Tensor):
        return data.detach().cpu().clone()
    if isinstance(data, BaseDataElement):
        return data.cpu()
    if isinstance(data, dict):
        return {key: _copy_to_cpu(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)) and not hasattr(data, '_fields'):
        return type(data)(_copy_to_cpu(value) for value in data)
    return data


def to_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) blue-green-red to red-green-blue."""
    return np.ascontiguousarray(image[..., ::-1])
