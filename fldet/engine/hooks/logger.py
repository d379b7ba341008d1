"""The log of a run, to its end."""

from typing import Any

from mmengine.hooks import LoggerHook as MMEngineLoggerHook

from fldet.registry import HOOKS


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """MMEngine's hook, which logs the last iteration too, whatever the interval.

    Else a run of 320 iterations would be one of 300 to those who read its log, and one of 6 nothing
    at all.
    """

    interval: int

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Logs each iteration of the interval, and the last."""
        interval = self.interval
        if runner.iter + 1 == runner.max_iters:
            self.interval = 1
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self.interval = interval
