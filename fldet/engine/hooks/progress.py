"""Progress that a person can read: a bar on a terminal, plain lines elsewhere."""

import logging
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.progress import Progress, TaskID

from fldet.progress import make_bar, shows_bars
from fldet.registry import HOOKS

log = logging.getLogger("fldet")

_EARLY = (1, 10)  # iterations of a run after which a line is due, for who waits for the first one


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows losses, learning rate and remaining time while training, and images while testing.

    On a terminal it is one bar that is redrawn; elsewhere a line is logged every ``interval``
    iterations, after the first and the tenth of a run, and at each tenth of a test. Only the first
    process speaks.

    Args:
        interval: iterations between two lines, and the window of the average losses.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._begun_at = 0  # iterations done before this run
        self._bar: Progress | None = None
        self._tasks: list[TaskID] = []

    def before_train(self, runner: Any) -> None:
        """Starts the training bar."""
        self._begun_at = runner.iter
        self._push("train", runner.max_iters, runner.iter)

    def after_train_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
        """Shows the iteration just done."""
        done = runner.iter + 1
        self._advance(done, lambda: bar_status(runner, self.interval))
        is_early = done - self._begun_at in _EARLY and self.interval > _EARLY[-1]
        if self._lines() and (is_early or done % self.interval == 0 or done == runner.max_iters):
            log.info(
                "iter %d/%d  %s", done, runner.max_iters, training_status(runner, self.interval)
            )

    def after_train(self, runner: Any) -> None:
        """Ends the training bar."""
        self._pop()

    def _before_epoch(self, runner: Any, mode: str = "train") -> None:
        if mode != "train":  # whose bar is that of all epochs
            self._push(mode, len(getattr(runner, f"{mode}_dataloader")))

    def _after_iter(self, runner: Any, batch_idx: int, *, mode: str, **_: Any) -> None:
        """Shows the batch of a validation or test just done."""
        self._advance(batch_idx + 1)
        if mode == "test" and self._lines():
            total = len(runner.test_dataloader)
            if (batch_idx + 1) % max(1, total // 10) == 0:
                log.info("test %d/%d batches", batch_idx + 1, total)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Logs the figures of a validation."""
        self._pop()
        if metrics and is_main_process():
            figures = "  ".join(
                f"{name.split('/')[-1]} {metrics[name]:.3f}"
                for name in ("coco/AP", "coco/AP50", "coco/AP75", "voc/mAP")
                if name in metrics
            )
            log.info("val at iter %d  %s", runner.iter, figures or metrics)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Ends the bar of a test."""
        self._pop()

    def after_run(self, runner: Any) -> None:
        """Gives the terminal back."""
        while self._tasks:
            self._pop()

    def _lines(self) -> bool:
        return is_main_process() and self._bar is None

    def _push(self, name: str, total: int, done: int = 0) -> None:
        if not (is_main_process() and shows_bars()):
            return
        if self._bar is None:
            self._bar = make_bar()
            self._bar.start()
        self._tasks.append(self._bar.add_task(name, total=total, completed=done, status=""))

    def _advance(self, done: int, status: Any = None) -> None:
        if self._bar and self._tasks:
            text = status() if status else ""
            self._bar.update(self._tasks[-1], completed=done, status=text)

    def _pop(self) -> None:
        if self._bar is None or not self._tasks:
            return
        task = self._tasks.pop()
        if self._tasks:
            self._bar.remove_task(task)
        else:
            self._bar.stop()
            self._bar = None


def bar_status(runner: Any, window: int) -> str:
    """Returns the mean loss over ``window`` iterations and the learning rate, in few columns."""
    scalars = runner.message_hub.log_scalars
    if "train/loss" not in scalars:  # all batches so far were passed over
        return ""
    return f"loss {scalars['train/loss'].mean(window):.3f} lr {scalars['train/lr'].current():.1e}"


def training_status(runner: Any, window: int) -> str:
    """Returns losses (mean over ``window`` iterations), learning rate and seconds per iteration."""
    scalars = runner.message_hub.log_scalars
    parts = [
        f"{name.removeprefix('train/')} {scalars[name].mean(window):.4f}"
        for name in ("train/loss", "train/loss_cls", "train/loss_bbox")
        if name in scalars
    ]
    if "train/lr" in scalars:
        parts.append(f"lr {scalars['train/lr'].current():.2e}")
    if "train/time" in scalars:
        seconds = float(scalars["train/time"].mean(window))
        left = seconds * (runner.max_iters - runner.iter - 1)
        parts.append(f"{seconds:.2f} s/it  eta {format_duration(left)}")
    return "  ".join(parts)


def format_duration(seconds: float) -> str:
    """Returns h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
