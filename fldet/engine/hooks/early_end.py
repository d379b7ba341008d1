"""Reasons for which a training ends before its last iteration, in good order."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from fldet.engine.hooks.checkpoint import VALIDATED, CheckpointHook
from fldet.engine.hooks.progress import format_duration
from fldet.engine.process_group import Agreement
from fldet.errors import ConfigError, nearest
from fldet.registry import HOOKS

log = logging.getLogger("fldet")

# In the checkpoint: the best score and the validations since; the seconds of all starts.
STATE, SECONDS = "early_stopping", "seconds_trained"


class EarlyEndHook(Hook):
    """Ends the loop with a checkpoint and a validation of the last weights."""

    priority = "LOW"  # before the checkpoint of the same moment is written
    reason = ""  # why this run was ended; '' if it was not

    def reached(self, info: Mapping[str, Any]) -> str:
        """Returns why a run with these ``runtime_info`` has nothing left to do; '' if it has."""
        raise NotImplementedError

    def end_if_reached(self, runner: Any, iteration: int) -> None:
        """Ends the loop before its next iteration, where there is a reason."""
        if iteration < runner.max_iters:
            self.reason = self.reached(runner.message_hub.runtime_info)
        if self.reason:
            runner.train_loop.stop_training = True
            if is_main_process():
                log.info("ending after iteration %d: %s", iteration, self.reason)

    def after_train_epoch(self, runner: Any) -> None:
        """Saves where the run ended, and validates if that was not done just before."""
        if not self.reason:
            return
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                hook.save_now(runner, runner.iter)
        validated = runner.message_hub.get_info(VALIDATED) == runner.iter
        if runner.val_loop is not None and not validated:
            runner.val_loop.run()


@HOOKS.register_module()
class EarlyStoppingHook(EarlyEndHook):
    """Ends a training whose validations have stopped improving; resumed runs count on.

    Args:
        patience: so many validations in a row without a better score end it, >= 1.
        monitor: the score, by its name among the figures of a validation.
        rule: ``greater`` or ``less`` is better.
        min_delta: a score is better from this difference on, >= 0.
    """

    def __init__(
        self,
        patience: int = 5,
        monitor: str = "coco/AP",
        rule: str = "greater",
        min_delta: float = 0.0,
    ) -> None:
        self.patience = patience
        self.monitor = monitor
        self.sign = 1.0 if rule == "greater" else -1.0
        self.min_delta = min_delta

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Counts. A score that is not a number is no better one."""
        metrics = metrics or {}
        if self.monitor not in metrics:
            raise ConfigError(
                f"early_stopping: the validation has no figure {self.monitor!r}",
                expected=nearest(self.monitor, metrics) or f"one of {', '.join(metrics)}",
                hint="early_stopping = dict(patience=5, monitor='coco/AP')",
            )
        score = float(metrics[self.monitor])
        state = runner.message_hub.get_info(STATE) or {"best": None, "waited": 0}
        gain = self.sign * (score - state["best"]) if state["best"] is not None else math.inf
        if not math.isnan(score) and gain > self.min_delta:
            state = {"best": score, "waited": 0}
        else:
            state = {**state, "waited": state["waited"] + 1}
        runner.message_hub.update_info(STATE, state)
        self.end_if_reached(runner, runner.iter)

    def reached(self, info: Mapping[str, Any]) -> str:
        """Returns why a run with these ``runtime_info`` has nothing left to do; '' if it has."""
        state = info.get(STATE) or {"waited": 0}
        if state["waited"] < self.patience:
            return ""
        best = "none was a number" if state["best"] is None else f"the best is {state['best']:.4f}"
        return f"{state['waited']} validations without a better {self.monitor}, {best}"


@HOOKS.register_module()
class TimeBudgetHook(EarlyEndHook):
    """Ends a training when its time is used up, after a step of the optimizer.

    Counted from the first iteration of each start, validations included, over all starts of the
    run; of a start that was killed, up to its last checkpoint. The last validation comes on top.

    Args:
        seconds: of the run, by ``clock``.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock

    def before_train(self, runner: Any) -> None:
        """Starts the clock, where earlier starts have stopped it."""
        self._agreement = Agreement(runner.cfg)
        self._start = self.clock() - runner.message_hub.get_info(SECONDS, 0.0)
        self.end_if_reached(runner, runner.iter)

    def after_train_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
        """Looks at the clock; all processes end after the same step."""
        self._note(runner)
        if runner.optim_wrapper.should_update():
            self.end_if_reached(runner, runner.iter + 1)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Notes the time for the checkpoint that follows."""
        self._note(runner)

    def _note(self, runner: Any) -> None:
        milliseconds = self._agreement.highest(int(1000 * (self.clock() - self._start)))
        runner.message_hub.update_info(SECONDS, milliseconds / 1000)

    def reached(self, info: Mapping[str, Any]) -> str:
        """Returns why a run with these ``runtime_info`` has nothing left to do; '' if it has."""
        used = float(info.get(SECONDS) or 0.0)
        if used < self.seconds:
            return ""
        return f"its max_time of {format_duration(self.seconds)} is used up"
