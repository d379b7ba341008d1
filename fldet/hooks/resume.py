"""What makes a resumed run the continuation of the one that was stopped."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook

from fldet.data.stream import ITERATION, seed_everything
from fldet.errors import CheckpointError
from fldet.hooks.agreement import Agreement
from fldet.hooks.checkpoint import VALIDATED, run_identity
from fldet.hooks.plain_checkpoint import make_plain, take_back
from fldet.registry import HOOKS

log = logging.getLogger("fldet")


@HOOKS.register_module()
class ResumeHook(Hook):
    """Random states that follow from the seed, and a validation that a stop has cut off.

    Before each iteration the generators of this process start from a function of the seed, the
    process and the iteration; nothing of them has to be saved. Where the config now gives another
    learning rate than when the run began, as with other images per step, the rate follows.

    Args:
        notes: put into each checkpoint's ``runtime_info``, for the next start.
    """

    priority = "LOWEST"

    def __init__(self, notes: Mapping[str, Any] | None = None) -> None:
        self.notes = dict(notes or {})
        self._resumed: dict[str, Any] | None = None
        self._rates: list[float] = []

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keeps what the checkpoint says about its run; of another run it takes what fits.

        Optimizer and schedule are still those of the config; theirs are loaded next.
        """
        take_back(checkpoint, Path(runner.work_dir))
        if runner._resume:
            self._resumed = checkpoint.get("meta", {})
            self._rates = first_rates(runner.optim_wrapper)
        else:
            keep_what_fits(getattr(runner.model, "module", runner.model), checkpoint)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Leaves nothing in the checkpoint that torch alone could not read back."""
        make_plain(checkpoint)

    def before_train(self, runner: Any) -> None:
        """Meets the other processes; sets notes and learning rate, after those of the checkpoint.

        Raises:
            CheckpointError: they go on from different iterations.
        """
        agreement = Agreement(runner.cfg)
        if not agreement.is_same(runner.iter):
            raise CheckpointError(
                f"the processes would go on from different iterations, this one from {runner.iter}",
                expected="one work dir that all machines of a run share",
            )
        for name, value in self.notes.items():
            runner.message_hub.update_info(name, value)
        if self._resumed is not None:
            follow_rates(self._rates, runner.optim_wrapper, lr_schedulers(runner.param_schedulers))

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


def keep_what_fits(model: Any, checkpoint: dict[str, Any]) -> None:
    """Puts the model's own first weights in the place of those of another shape, and names them.

    Args:
        model: that the checkpoint is to be loaded into.
        checkpoint: with the weights as ``state_dict`` or by themselves; changed in place.

    Raises:
        CheckpointError: no weight has name and shape of one of the model.
    """
    weights, own = checkpoint.get("state_dict", checkpoint), model.state_dict()
    names = {name.removeprefix("module."): name for name in weights}
    shared = [name for name in own if name in names]
    other = [name for name in shared if weights[names[name]].shape != own[name].shape]
    if len(other) == len(shared):
        raise CheckpointError(
            "load_from: none of the weights fits the model of the config",
            expected="a checkpoint of a detector with the same backbone, neck or head",
        )
    for name in other:
        log.info(
            "load_from: %s starts anew: it is %s in the checkpoint, %s here",
            *(name, tuple(weights[names[name]].shape), tuple(own[name].shape)),
        )
        weights[names[name]] = own[name]
    log.info("load_from: %d of %d tensors taken", len(shared) - len(other), len(own))


def first_rates(optimizer: Any) -> list[float]:
    """Returns the learning rate of each group before any schedule has changed it."""
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


def lr_schedulers(param_schedulers: Any) -> list[Any]:
    """Returns those of a runner's schedulers that set the learning rate."""
    if isinstance(param_schedulers, dict):
        param_schedulers = [one for some in param_schedulers.values() for one in some]
    return [one for one in param_schedulers or () if one.param_name == "lr"]


def follow_rates(rates: Sequence[float], optimizer: Any, schedulers: Sequence[Any]) -> None:
    """Brings a loaded optimizer and its schedulers to other first learning rates, in place.

    A rate keeps its share of the first one, so that warm-up and schedule go on where they are.

    Args:
        rates: one for each group, as ``first_rates`` returned them.
        optimizer: of MMEngine's wrappers, with the state of the run.
        schedulers: of its learning rate.
    """
    before = first_rates(optimizer)
    factors = [new / old if old else 1.0 for new, old in zip(rates, before, strict=True)]
    if all(factor == 1 for factor in factors):
        return
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        for name in ("lr", "initial_lr"):
            if name in group:
                group[name] *= factor
    for scheduler in schedulers:
        scheduler.base_values = [
            value * factor for value, factor in zip(scheduler.base_values, factors, strict=True)
        ]
    log.warning("learning rate: the run began with %g, it goes on from %g", before[-1], rates[-1])


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
