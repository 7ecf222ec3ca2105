"""Pictures of training curves."""

from pathlib import Path

# Unlike pyplot, this needs no display and keeps no state.
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmssm.analysis.curves import Run, read_run
from mmssm.utils import UserError

from .figures import check_figure_path, save_figure

# What is drawn by default, if it was logged.
DEFAULT_KEYS = (
    'loss',
    'coco/bbox_mAP',
    'coco/segm_mAP',
    'accuracy/top1',
    'mIoU',
    'F1',
)
LINE_STYLES = ('-', '--', ':', '-.')


def plot_runs(
    paths: list[str | Path], out: str | Path, keys: list[str] | None = None
) -> None:
    """Draw the training curves of several runs in one picture.

    Args:
        paths (list[str | Path]): The runs, as ``read_run`` takes them.
        out (str | Path): The picture; its suffix chooses the format.
        keys (list[str] | None): Which logged quantities to draw: losses in
            the left panel, all others in the right one. By default the loss
            and each task's main metric. The horizontal axis counts epochs,
            or iterations if one of the runs logged no epochs.

    Raises:
        UserError: If a run has no log or a damaged one, if no run logged one
            of the keys, or if the suffix is not a known format.
    """
    check_figure_path(out)
    runs = [read_run(path) for path in paths]
    logged = sorted({key for run in runs for key in run.keys()})
    for key in keys or ():
        if key not in logged:
            raise UserError(
                f'no run logged {key!r}; choose from: {", ".join(logged)}'
            )
    keys = keys or [key for key in DEFAULT_KEYS if key in logged]
    if not keys:
        raise UserError(
            'the runs logged none of the usual quantities; '
            f'choose keys from: {", ".join(logged)}'
        )
    losses = [key for key in keys if 'loss' in key]
    metrics = [key for key in keys if 'loss' not in key]
    _draw_panels(runs, [panel for panel in (losses, metrics) if panel], out)


def _draw_panels(runs: list[Run], panels: list[list[str]], out: Path) -> None:
    figure = Figure(figsize=(5.5 * len(panels), 4), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    # Iterations, unless all runs logged epochs.
    in_epochs = all(run.epochs for run in runs)
    for axis, keys in zip(axes, panels):
        _draw_lines(axis, runs, keys, in_epochs)
        axis.set_xlabel('epoch' if in_epochs else 'iteration')
        axis.set_xlim(left=0)  # The same distances in both panels.
        axis.xaxis.get_major_locator().set_params(integer=True)
        common = 'loss' if 'loss' in keys[0] else 'metric'
        axis.set_ylabel(keys[0] if len(keys) == 1 else common)
        axis.grid(alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend(fontsize='small')
    if len(runs) == 1:
        figure.suptitle(runs[0].name, fontsize='medium')
    save_figure(figure, out)


def _draw_lines(
    axis: Axes, runs: list[Run], keys: list[str], in_epochs: bool
) -> None:
    """Draw a line for each run and key that was logged."""
    for number, run in enumerate(runs):
        for key, style in zip(keys, LINE_STYLES * len(keys)):
            line = run.line(key, in_epochs)
            if line is None:
                continue
            label = key if len(runs) == 1 else f'{run.name}: {key}'
            if len(runs) > 1 and len(keys) == 1:
                label = run.name  # The axis names the key.
            # Mark evaluations, which are few, and lines of a single point.
            marked = key not in run.train or len(line[0]) == 1
            axis.plot(
                *line,
                style,
                color=f'C{number if len(runs) > 1 else keys.index(key)}',
                marker='o' if marked else None,
                markersize=4,
                label=label,
            )
