"""Checkpoints that a run can always go on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from fldet.config.train_step import train_step_in_words
from fldet.errors import CheckpointError
from fldet.numeric import is_whole
from fldet.registry import HOOKS

# In the checkpoint: the iteration whose validation is part of it.
VALIDATED = "validated_iter"
_IN_WORDS = {"optimizer", "training step"}  # of a run's identity; the others are counts


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's hook; old files go after the new one is there, and validations are noted.

    MMEngine removes the oldest checkpoint, and the best one, before it writes. Here they stay
    until the next one is whole. A checkpoint that was written before a validation is written
    again after it, so that the validation is neither lost nor done twice.

    Args:
        max_keep_ckpts: this many of the newest are kept, at least two.
        **kwargs: of MMEngine's hook.
    """

    best_ckpt_path: str | None

    def __init__(self, *, max_keep_ckpts: int = 2, **kwargs: Any) -> None:
        super().__init__(max_keep_ckpts=-1, **{"by_epoch": False, **kwargs})
        self.keep = max(2, max_keep_ckpts) if max_keep_ckpts > 0 else 0
        self._saved: tuple[int, bool] | None = None

    def before_train(self, runner: Any) -> None:
        """Takes over what a resumed run has saved, wherever its work dir is now."""
        super().before_train(runner)
        if runner.iter:
            self._saved = runner.iter, runner.message_hub.get_info(VALIDATED) == runner.iter
        if best := getattr(self, "best_ckpt_path", None):
            self.best_ckpt_path = str(Path(self.out_dir, Path(best).name))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float]) -> None:
        """Saves the best checkpoint, and the newest once more with the result."""
        runner.message_hub.update_info(VALIDATED, runner.iter)
        super().after_val_epoch(runner, metrics)
        if self._saved == (runner.iter, False):
            meta = {"epoch": runner.epoch, "iter": runner.iter}
            self._save_checkpoint_with_step(runner, runner.iter, meta)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Notes what a resumed run has to have in common with this one."""
        checkpoint["meta"]["fldet"] = run_identity(runner)

    def save_now(self, runner: Any, iteration: int) -> str:
        """Returns the name of a checkpoint of ``iteration``, written if it is not there yet."""
        if self._saved is None or self._saved[0] != iteration:
            meta = {"epoch": runner.epoch, "iter": iteration}
            self._save_checkpoint_with_step(runner, iteration, meta)
        return str(self.filename_tmpl.format(iteration))

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        except OSError as error:
            raise CheckpointError(
                f"cannot write into {self.out_dir}: {error.strerror or error}",
                expected="room for a checkpoint; those written before are whole",
                hint="make room, then go on with --resume",
            ) from error
        self._saved = step, runner.message_hub.get_info(VALIDATED) == step
        if self.keep and is_main_process():
            for path in _older(Path(self.out_dir), self.filename_tmpl, step)[self.keep :]:
                path.unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, float]) -> None:
        best = getattr(self, "best_ckpt_path", None)
        self.best_ckpt_path = None  # for MMEngine there is nothing to remove
        super()._save_best_checkpoint(runner, metrics)
        if self.best_ckpt_path is None:
            self.best_ckpt_path = best
        elif best not in (None, self.best_ckpt_path) and is_main_process():
            Path(str(best)).unlink(missing_ok=True)


def run_identity(runner: Any) -> dict[str, Any]:
    """Returns what a resumed run has to have in common, beside the seed, to be the same run."""
    loader = runner.train_loop.dataloader
    wrapper = runner.optim_wrapper
    return {
        "processes": get_world_size(),
        "images per process": loader.batch_sampler.batch_size,
        "training images": len(loader.dataset),
        "batches of a step": getattr(wrapper, "_accumulative_counts", 1),
        "optimizer": type(getattr(wrapper, "optimizer", wrapper)).__name__,
        "training step": train_step_in_words(runner.cfg),
    }


def identity_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ``run_identity`` in what a checkpoint says of its run, as far as it is one."""
    found = meta.get("fldet")
    return {
        name: value
        for name, value in (found.items() if isinstance(found, dict) else ())
        if (isinstance(value, str) if name in _IN_WORDS else type(value) is int and value > 0)
    }


def _older(folder: Path, template: str, step: int) -> list[Path]:
    """Returns the checkpoints up to ``step``, newest first."""
    prefix, suffix = template.split("{}")
    steps = [
        int(text)
        for path in folder.glob(f"{prefix}*{suffix}")
        if is_whole(text := path.name[len(prefix) : -len(suffix)])
    ]
    return [folder / template.format(n) for n in sorted(steps, reverse=True) if n <= step]
