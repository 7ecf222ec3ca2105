"""Find the checkpoint to resume from."""

import re
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process

from mmssm.checkpoint import load_file
from mmssm.checkpoint.own_names import update_names
from mmssm.utils import CheckpointError
from mmssm.utils.errors import warn

_NEEDED = ('state_dict', 'message_hub', 'optimizer')


def prepare_resume(cfg: Config, checkpoint: str) -> None:
    """Set ``cfg.resume`` and ``cfg.load_from`` for ``--resume``.

    Args:
        cfg (Config): The config to run; changed in place.
        checkpoint (str): A file, or ``'auto'`` for the work directory's
            newest checkpoint that can be loaded. If there is none, training
            starts from the beginning.

    Raises:
        CheckpointError: ``checkpoint`` cannot be resumed from, or all
            checkpoints of the work directory are damaged.
    """
    if checkpoint != 'auto':
        _check_resumable(Path(checkpoint))
        cfg.resume, cfg.load_from = True, checkpoint
        return
    found = find_latest(cfg.work_dir)
    if found is None:
        cfg.resume = False
        warn(
            f'no checkpoint in {cfg.work_dir} to resume from, training '
            'starts from the beginning'
        )
        return
    cfg.resume, cfg.load_from = True, found


def find_latest(work_dir: str) -> str | None:
    """Find the newest training checkpoint of a folder that can be loaded.

    The checkpoint that ``last_checkpoint`` names is tried first, then the
    others, newest first. A warning names each damaged one. The first process
    decides for all.

    Args:
        work_dir (str): The folder of the checkpoints.

    Returns:
        str, optional: The file; None if there is no training checkpoint.

    Raises:
        CheckpointError: There are checkpoints, but none can be loaded.
    """
    answer: list = [None, None]
    if is_main_process():
        answer[0], answer[1] = _search(Path(work_dir))
    broadcast_object_list(answer)
    found, failure = answer
    if failure is not None:
        raise CheckpointError(failure)
    return found


def _search(folder: Path) -> tuple[str | None, str | None]:
    """The newest loadable checkpoint, or why there is none (both optional)."""
    failures = []
    for path in _candidates(folder):
        try:
            _check_resumable(path)
        except CheckpointError as error:
            failures.append(path.name)
            warn(f'--resume skips a checkpoint: {error}')
        else:
            return str(path), None
    if not failures:
        return None, None
    return None, (
        f'none of the checkpoints in {folder} can be resumed from '
        f'({", ".join(failures)}); give another with --resume CKPT, or train '
        'from the beginning without --resume'
    )


def _candidates(folder: Path) -> list[Path]:
    """The checkpoint of ``last_checkpoint``, then others, newest first.

    Best checkpoints (``best_*``) and published ones (``*-<sha256>.pth``)
    have no optimizer state and are left out.
    """
    candidates = []
    marker = folder / 'last_checkpoint'
    if marker.is_file() and marker.read_text().strip():
        candidates.append(Path(marker.read_text().strip()))
    others = [
        path
        for path in folder.glob('*.pth')
        if not path.name.startswith('best_')
        and not re.search(r'-[0-9a-f]{8}\.pth$', path.name)
    ]
    others.sort(key=_age, reverse=True)
    # The folder may have been moved since last_checkpoint was written.
    here = folder / candidates[0].name if candidates else None
    if here is not None and not candidates[0].exists() and here.exists():
        candidates[0] = here
    names = {path.name for path in candidates}
    return candidates + [path for path in others if path.name not in names]


def _age(path: Path) -> tuple[int, float]:
    """Sorting key: the step in the name, then the time of writing."""
    step = re.search(r'(\d+)\.pth$', path.name)
    return int(step[1]) if step else -1, path.stat().st_mtime


def _check_resumable(path: Path) -> None:
    checkpoint = load_file(path)
    whole = isinstance(checkpoint, dict) and all(
        key in checkpoint for key in _NEEDED
    )
    if not whole:
        raise CheckpointError(
            f'{path} holds weights but not the state of a training run, so it '
            'cannot be resumed from; to start from its weights use '
            f'--cfg-options load_from={path}'
        )
    # The optimizer has a state for each tensor, in order.
    weights = checkpoint['state_dict']
    if len(update_names(weights)) != len(weights):
        raise CheckpointError(
            f'{path} is of an earlier version of mmssm, in which a gate had '
            'no layer of its own: the state of its optimizer does not fit; '
            'finish the training with that version, or start from its weights '
            f'with --cfg-options load_from={path}'
        )
