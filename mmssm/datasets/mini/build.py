"""Build the folder of a mini dataset atomically."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mmssm.utils import UserError
from mmssm.utils.files import file_lock

STAMP = 'mini.json'
DRAWING_SOURCES = sorted(Path(__file__).parent.glob('*.py'))


def ensure_root(root: str | Path, write: Callable[[Path], None]) -> bool:
    """Build the dataset in ``root`` unless a complete one is there.

    The dataset is written to a temporary folder beside ``root``, which is
    renamed when it is complete. If several processes start together, one
    builds and the others wait. A folder is built again if a file is missing
    or if the drawing code has changed.

    Args:
        root (str | Path): The dataset's folder.
        write (Callable): Writes the dataset to an empty folder.

    Returns:
        bool: Whether the dataset had to be built.

    Raises:
        UserError: If ``root`` has other contents.
    """
    root = Path(root).absolute()
    if _is_complete(root):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(root):
        if _is_complete(root):
            return False
        _refuse_foreign(root)
        scratch_prefix = f'.{root.name}.building-'
        for left_over in root.parent.glob(f'{scratch_prefix}*'):
            shutil.rmtree(left_over)
        scratch = Path(
            tempfile.mkdtemp(prefix=scratch_prefix, dir=root.parent)
        )
        try:
            _build(root, scratch, write)
        finally:
            shutil.rmtree(scratch)
    return True


def _build(root: Path, scratch: Path, write: Callable[[Path], None]) -> None:
    built = scratch / 'built'
    built.mkdir()
    write(built)
    stamp = dict(version=_version(), files=_file_sizes(built))
    (built / STAMP).write_text(json.dumps(stamp, indent=0))
    if root.exists():
        root.rename(scratch / 'replaced')
    built.rename(root)


def _version() -> str:
    """A digest of the drawing code; if it changes, datasets are rebuilt."""
    sources = b''.join(path.read_bytes() for path in DRAWING_SOURCES)
    return hashlib.sha256(sources).hexdigest()[:16]


def _is_complete(root: Path) -> bool:
    try:
        stamp = json.loads((root / STAMP).read_text())
        return stamp['version'] == _version() and stamp[
            'files'
        ] == _file_sizes(root)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _file_sizes(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_size
        for path in sorted(root.rglob('*'))
        if path.is_file() and path.name != STAMP
    }


def _refuse_foreign(root: Path) -> None:
    if root.is_dir() and (not any(root.iterdir()) or (root / STAMP).is_file()):
        return
    if root.exists():
        raise UserError(
            f'{root} exists but was not built by mmssm (it has no {STAMP}): '
            'move it away or choose another folder'
        )
