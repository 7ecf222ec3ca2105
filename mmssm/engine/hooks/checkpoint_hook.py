"""A checkpoint hook that keeps a valid checkpoint at any time."""

import hashlib
import io
import os
import os.path as osp
from collections.abc import Collection
from pathlib import Path

import torch
from mmengine.dist import is_main_process, master_only
from mmengine.fileio import BaseStorageBackend, LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmssm.checkpoint import load_file
from mmssm.utils import atomic_write
from mmssm.utils.files import TEMP_SUFFIX


@register_backend('mmssm_atomic')
class AtomicBackend(LocalBackend):
    """A backend that writes local files atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file atomically; see :func:`atomic_write`."""
        with atomic_write(filepath) as file:
            file.write(obj)


class _Postponed:
    """A storage backend whose removals wait until :meth:`remove_now`."""

    def __init__(self, backend: BaseStorageBackend) -> None:
        self._backend = backend
        self._waiting: list = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._waiting.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self._waiting.append((self._backend.rmtree, path))

    def remove_now(self, keep: Collection[str]) -> None:
        for remove, path in self._waiting:
            if path not in keep:
                remove(path)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, safe if the run is killed at any time.

    Options and file names are those of mmengine; the order of steps differs:

    1. A checkpoint is written to a temporary file and renamed.
    2. ``last_checkpoint`` is replaced atomically and names it.
    3. The outdated checkpoint (or best checkpoint) is removed. mmengine does
       this first.

    The name of a published file has the sha256 of that file. If validation
    does not give the metric of ``save_best``, a warning tells which ones it
    gives, and the training goes on.

    Remote storage (``backend_args``) is written as in mmengine.
    """

    def before_train(self, runner: Runner) -> None:
        """Choose the atomic backend; remove the files of a killed run."""
        out_dir = str(self.out_dir or runner.work_dir)
        remote = '://' in out_dir or self.backend_args is not None
        if not remote and self.file_client_args is None:
            self.backend_args = dict(backend='mmssm_atomic')
        super().before_train(runner)
        if not remote and is_main_process():
            for leftover in Path(self.out_dir).glob(f'.*.pth.*{TEMP_SUFFIX}'):
                leftover.unlink()

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        outdated = self._make_room(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        with atomic_write(osp.join(runner.work_dir, 'last_checkpoint')) as f:
            f.write(self.last_ckpt.encode())
        if outdated is not None:
            path = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(outdated)
            )
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # deepspeed's are folders
                self.file_backend.rmtree(path)

    def _make_room(self, runner, step: int):
        """Add ``step`` to those kept; return the step to remove, if any."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return None
        full = len(self.keep_ckpt_ids) == self.max_keep_ckpts
        outdated = self.keep_ckpt_ids.popleft() if full else None
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info(
            'keep_ckpt_ids', list(self.keep_ckpt_ids)
        )
        return outdated

    def _save_best_checkpoint(self, runner, metrics) -> None:
        if not self.save_best:
            return
        missing = set(self.key_indicators) - {'auto', *metrics}
        if missing:
            runner.logger.warning(
                f'save_best: {", ".join(sorted(missing))} is none of the '
                f'metrics ({", ".join(metrics)}), so that no best checkpoint '
                'is written'
            )
            return
        backend = self.file_backend
        self.file_backend = _Postponed(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            postponed, self.file_backend = self.file_backend, backend
        # A resumed run's best checkpoint can have the old one's name.
        if len(self.key_indicators) == 1:
            best = {self.best_ckpt_path}
        else:
            best = set(self.best_ckpt_path_dict.values())
        postponed.remove_now(keep=best)

    @master_only
    def _publish_model(self, runner, ckpt_path: str) -> None:
        checkpoint = load_file(ckpt_path)
        content = {
            key: value
            for key, value in checkpoint.items()
            if key in self.published_keys
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]
        path = f'{os.path.splitext(ckpt_path)[0]}-{digest}.pth'
        with atomic_write(path) as file:
            file.write(buffer.getbuffer())
        runner.logger.info(f'{ckpt_path} is published as {path}')
