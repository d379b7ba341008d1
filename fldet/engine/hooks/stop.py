"""Stopping between two iterations when the process is asked to end."""

import signal
from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook

from fldet.engine.hooks.checkpoint import CheckpointHook
from fldet.engine.process_group import Agreement
from fldet.errors import StoppedError
from fldet.registry import HOOKS


@HOOKS.register_module()
class StopHook(Hook):
    """Saves a checkpoint and stops as soon as one of the processes has received a signal.

    All processes stop after the same iteration. In a validation it is stopped there and done again
    by the resumed run.

    Args:
        received: returns the number of the signal that this process has received, 0 for none.
        command: how to go on, for the message.
    """

    priority = "LOWEST"

    def __init__(self, received: Callable[[], int], command: str) -> None:
        self.received = received
        self.command = command

    def before_train(self, runner: Any) -> None:
        """Meets the other processes."""
        self._agreement = Agreement(runner.cfg)

    def after_train_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
        """Stops after this iteration if one process was asked to, and gradients are applied."""
        if runner.optim_wrapper.should_update():
            self._stop_if_asked(runner, runner.iter + 1)

    def before_val_epoch(self, runner: Any) -> None:
        """Finds out whether all processes have as many batches, so that each can be asked."""
        self._in_step = self._agreement.is_same(len(runner.val_dataloader))

    def after_val_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
        """Stops in the validation if one process was asked to."""
        if self._in_step:
            self._stop_if_asked(runner, runner.iter)

    def _stop_if_asked(self, runner: Any, iteration: int) -> None:
        number = self._agreement.highest(self.received())
        if not number:
            return
        saved = [
            hook.save_now(runner, iteration)
            for hook in runner.hooks
            if isinstance(hook, CheckpointHook)
        ]
        # once the first process has ended torchrun gives the others 30 seconds: too few, maybe, for
        # the one that writes
        self._agreement.highest(number)
        raise StoppedError(
            f"stopped by {signal.Signals(number).name} after iteration {iteration} of "
            f"{runner.max_iters}, saved {', '.join(saved) or 'nothing'} in {runner.work_dir}",
            hint=f"go on with: {self.command}",
            exit_code=128 + number,
        )
