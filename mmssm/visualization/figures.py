"""Check and write the files of matplotlib figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmssm.utils import UserError, atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_figure_path(path: str | Path) -> None:
    """Check a picture's suffix before the work for it is done.

    Raises:
        UserError: If the suffix is not a known format.
    """
    # Imported here: only pictures need matplotlib. Unlike pyplot, figures
    # need no display and keep no state.
    from matplotlib.figure import Figure

    formats = Figure().canvas.get_supported_filetypes()
    if Path(path).suffix[1:] not in formats:
        raise UserError(
            f'cannot write {path}: its suffix must be one of '
            f'{", ".join(sorted(formats))}'
        )


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure atomically; the suffix chooses the format."""
    with atomic_write(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:], dpi=150)
