"""What makes a resumed run the continuation of the one that was stopped."""

import logging
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook

from fldet.data.stream import ITERATION, seed_everything
from fldet.errors import CheckpointError
from fldet.hooks.agreement import Agreement
from fldet.hooks.checkpoint import VALIDATED, run_identity
from fldet.registry import HOOKS

log = logging.getLogger("fldet")


@HOOKS.register_module()
class ResumeHook(Hook):
    """Random states that follow from the seed, and a validation that a stop has cut off.

    Before each iteration the generators of this process start from a function of the seed, the
    process and the iteration; nothing of them has to be saved.
    """

    priority = "LOWEST"

    def __init__(self) -> None:
        self._resumed: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keeps what the checkpoint says about its run."""
        self._resumed = checkpoint.get("meta", {})

    def before_train(self, runner: Any) -> None:
        """Meets the other processes.

        Raises:
            CheckpointError: they go on from different iterations.
        """
        agreement = Agreement(runner.cfg)
        if not agreement.is_same(runner.iter):
            raise CheckpointError(
                f"the processes would go on from different iterations, this one from {runner.iter}",
                expected="one work dir that all machines of a run share",
            )

    def before_train_epoch(self, runner: Any) -> None:
        """Says what was restored, and validates if the run was stopped before it could."""
        if self._resumed is None or not runner.iter:
            return
        log.info(banner(runner))
        for name, (then, now) in changes(self._resumed.get("fldet") or {}, runner).items():
            log.warning("%s: %s before, %s now: the run goes on, but not exactly", name, then, now)
        if validation_is_due(runner):
            log.info("validating iteration %d, which the earlier run did not finish", runner.iter)
            runner.val_loop.run()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Sets the random states for this iteration."""
        seed_everything(ITERATION, runner.seed, get_rank(), runner.iter)


def banner(runner: Any) -> str:
    """Returns a line for each part of a run that was restored."""
    state = runner.optim_wrapper.optimizer.state
    rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
    best = runner.message_hub.get_info("best_score")
    lines = [
        f"resumed after iteration {runner.iter} of {runner.max_iters}:",
        f"  weights and buffers; optimizer state of {len(state)} tensors; learning rate {rate:.3g}",
        f"  best score so far {'-' if best is None else f'{best:.4f}'}; log history",
        f"  order of the samples and random states, from seed {runner.seed} and the iteration",
    ]
    return "\n".join(lines)


def changes(before: dict[str, int], runner: Any) -> dict[str, tuple[int, int]]:
    """Returns (before, now) of what the order of the samples depends on, where they differ."""
    now = run_identity(runner)
    return {name: (before[name], now[name]) for name in before if before[name] != now.get(name)}


def validation_is_due(runner: Any) -> bool:
    """Returns whether the loop would have validated after the iterations done, and has not."""
    loop = runner.train_loop
    if runner.val_loop is None or loop.iter < loop.val_begin:
        return False
    loop._decide_current_val_interval()
    due = loop.iter % loop.val_interval == 0 or loop.iter == loop.max_iters
    return due and runner.message_hub.get_info(VALIDATED) != loop.iter
