"""A picture of accuracy over the image size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Unlike pyplot, this needs no display and keeps no state.
from matplotlib.figure import Figure

from .figures import check_figure_path, save_figure


@dataclass
class Resolution:
    """The accuracy at one image size.

    Attributes:
        size (int): Height and width of the images, pixels.
        batch (int): Images in a batch of one process.
        top1 (float): Top-1 accuracy, percent.
        top5 (float | None): Top-5 accuracy, percent; None if the config's
            evaluator does not measure it.
    """

    size: int
    batch: int
    top1: float
    top5: float | None


def draw_resolutions(
    results: Sequence[Resolution], own: int, title: str, out: str | Path
) -> None:
    """Draw top-1 accuracy over the image size.

    Args:
        results (Sequence[Resolution]): At least one, by ascending size.
        own (int): The size at which the config tests, pixels; it is marked.
        title (str): The title of the picture.
        out (str | Path): The picture; its suffix chooses the format.

    Raises:
        ValueError: The suffix is not a known format.
    """
    check_figure_path(out)
    figure = Figure(figsize=(5.5, 4), layout='constrained')
    axis = figure.subplots()
    sizes = [result.size for result in results]
    accuracies = [result.top1 for result in results]
    mark = dict(color='gray', linestyle=':')
    axis.axvline(own, label=f"the config's size ({own} px)", **mark)
    axis.plot(sizes, accuracies, marker='o', markersize=4)
    ground = dict(facecolor='white', edgecolor='none', alpha=0.8, pad=0.6)
    for point in zip(sizes, accuracies):
        axis.annotate(
            f'{point[1]:.1f}',
            point,
            xytext=(0, 7),  # points
            textcoords='offset points',
            ha='center',
            fontsize='small',
            bbox=ground,
        )
    # Sizes often grow by factors; on a linear axis small ones would overlap.
    axis.set_xscale('log')
    axis.set_xticks(sizes, map(str, sizes))
    axis.tick_params('x', which='minor', bottom=False, labelbottom=False)
    axis.margins(0.08, 0.15)  # for the numbers
    axis.set_xlabel('image size (px)')
    axis.set_ylabel('top-1 accuracy (%)')
    axis.set_title(title, fontsize='medium')
    axis.grid(alpha=0.3)
    axis.legend(fontsize='small')
    save_figure(figure, out)
