"""Converting an original author's checkpoint."""

from pathlib import Path

import torch

from mmssm.checkpoint import convert_upstream, load_file
from mmssm.utils import CheckpointError, atomic_write


def convert(source: str | Path, target: str | Path) -> dict:
    """Convert an original author's checkpoint to mmssm's names.

    Args:
        source (str | Path): The original's file.
        target (str | Path): The file to write, in mmpretrain's style.

    Returns:
        dict: What was written: ``{'meta', 'state_dict'}``.

    Raises:
        CheckpointError: ``source`` is not an original's file that mmssm
            knows, or ``target`` cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.is_dir():
        raise CheckpointError(f'{target} is a folder; name a file to write')
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(
            f'{target} is the original itself; give another name to write'
        )
    converted = convert_upstream(load_file(source), source.name)
    if converted is None:
        raise CheckpointError(
            f'{source} is not an original checkpoint of a family that mmssm '
            'knows; a file of mmssm needs no conversion'
        )
    with atomic_write(target) as file:
        torch.save(converted, file)
    return converted
