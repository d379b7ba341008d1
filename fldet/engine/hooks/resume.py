"""What makes a resumed run the continuation of the one that was stopped."""

import inspect
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook

from fldet.checkpoints.class_rows import carry_rows
from fldet.checkpoints.files import checkpoint_classes
from fldet.data.stream import ITERATION, seed_everything
from fldet.engine.hooks.checkpoint import VALIDATED, identity_of, run_identity
from fldet.engine.hooks.plain_checkpoint import make_plain, take_back
from fldet.engine.process_group import Agreement, unwrapped
from fldet.errors import CheckpointError, shorten
from fldet.registry import HOOKS

log = logging.getLogger("fldet")

# What is no setting of a config, but where a run is.
_OF_THE_RUN = {"params", "lr", "initial_lr"}


@HOOKS.register_module()
class ResumeHook(Hook):
    """Random states that follow from the seed, and a validation that a stop has cut off.

    Before each iteration the generators of this process start from a function of the seed, the
    process and the iteration; nothing of them has to be saved. Where the config now gives another
    learning rate than when the run began, as with other images per step, the rate follows; so do
    the other settings of the optimizer, as the weight decay, and of the schedule.

    Args:
        notes: put into each checkpoint's ``runtime_info``, for the next start.
    """

    priority = "LOWEST"

    def __init__(self, notes: Mapping[str, Any] | None = None) -> None:
        self.notes = dict(notes or {})
        self._resumed: dict[str, Any] | None = None
        self._rates: list[float] = []
        self._settings: list[dict[str, Any]] = []
        self._schedule: list[dict[str, Any]] = []

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keeps what the checkpoint says about its run; of another run it takes what fits.

        Optimizer and schedule are still those of the config; theirs are loaded next.
        """
        take_back(checkpoint, Path(runner.work_dir))
        if runner._resume:
            self._resumed = checkpoint["meta"]
            self._rates = first_rates(runner.optim_wrapper)
            self._settings = settings_of(runner.optim_wrapper)
            self._schedule = [one.state_dict() for one in schedulers_of(runner.param_schedulers)]
        else:
            classes = runner.train_dataloader.dataset.metainfo.get("classes")
            keep_what_fits(unwrapped(runner.model), checkpoint, classes)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Leaves nothing in the checkpoint that torch alone could not read back."""
        make_plain(checkpoint)

    def before_train(self, runner: Any) -> None:
        """Meets the other processes; sets notes and rates, after those of the checkpoint."""
        agreement = Agreement(runner.cfg)
        if not agreement.is_same(runner.iter):
            raise CheckpointError(
                f"the processes would go on from different iterations, this one from {runner.iter}",
                expected="one work dir that all machines of a run share",
            )
        for name, value in self.notes.items():
            runner.message_hub.update_info(name, value)
        if self._resumed is not None:
            schedulers = schedulers_of(runner.param_schedulers)
            rates = [one for one in schedulers if one.param_name == "lr"]
            follow_rates(self._rates, runner.optim_wrapper, rates)
            scheduled = {one.param_name for one in schedulers}
            follow_settings(self._settings, runner.optim_wrapper, scheduled)
            follow_schedule(self._schedule, schedulers)

    def before_train_epoch(self, runner: Any) -> None:
        """Says what was restored, and validates if the run was stopped before it could."""
        if self._resumed is None or not runner.iter:
            return
        log.info(banner(runner))
        identity = run_identity(runner)
        for name, then in identity_of(self._resumed).items():
            now = identity.get(name)
            if now != then:
                said = "%s: %s before, %s now: the run goes on, but not exactly"
                log.warning(said, name, shorten(then), shorten(now))
        if validation_is_due(runner):
            log.info("validating iteration %d, which the earlier run did not finish", runner.iter)
            runner.val_loop.run()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Sets the random states for this iteration."""
        seed_everything(ITERATION, runner.seed, get_rank(), runner.iter)


def keep_what_fits(
    model: Any, checkpoint: dict[str, Any], classes: Sequence[str] | None = None
) -> None:
    """Puts the model's own first weights in the place of those of another shape, and names them.

    Where the checkpoint is of other classes than ``classes``, the rows of those that both know are
    kept. The checkpoint, with the weights as ``state_dict`` or by themselves, is changed in place.
    """
    weights, own = checkpoint.get("state_dict", checkpoint), model.state_dict()
    _keep_classes(model, weights, checkpoint_classes(checkpoint, Path("load_from")), classes)
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


def _keep_classes(
    model: Any, weights: dict[str, Any], before: Sequence[str] | None, now: Sequence[str] | None
) -> None:
    """Keeps the rows of classes that both know, in place, and says which."""
    if not before or not now or tuple(before) == tuple(now):
        return
    prefix = "module." if all(name.startswith("module.") for name in weights) else ""
    bare = {name.removeprefix(prefix): value for name, value in weights.items()}
    kept = carry_rows(model, bare, before, now)
    weights.update({f"{prefix}{name}": value for name, value in bare.items()})
    if kept:
        new = [name for name in now if name not in kept]
        log.info(
            "load_from: rows of the last layers are kept by class: %s; %s",
            shorten(", ".join(kept)),
            f"these start anew: {shorten(', '.join(new))}" if new else "none starts anew",
        )


def first_rates(optimizer: Any) -> list[float]:
    """Returns the learning rate of each group before any schedule has changed it."""
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


def settings_of(optimizer: Any) -> list[dict[str, Any]]:
    """Returns what the config says of each group of weights, without the learning rate."""
    return [
        {name: value for name, value in group.items() if name not in _OF_THE_RUN}
        for group in optimizer.param_groups
    ]


def schedulers_of(param_schedulers: Any) -> list[Any]:
    """Returns a runner's schedulers as one list."""
    if isinstance(param_schedulers, dict):
        return [one for some in param_schedulers.values() for one in some]
    return list(param_schedulers or ())


def follow_rates(rates: Sequence[float], optimizer: Any, schedulers: Sequence[Any]) -> None:
    """Brings a loaded optimizer and its schedulers to other first rates of its groups, in place.

    A rate keeps its share of the first one, so that warm-up and schedule go on where they are.
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


def follow_settings(
    settings: Sequence[Mapping[str, Any]], optimizer: Any, scheduled: Collection[str]
) -> None:
    """Brings a loaded optimizer to the settings of the config, in place, and names them.

    Those that are ``scheduled`` stay where the schedules have brought them.
    """
    changed: dict[str, tuple[Any, Any]] = {}
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        for name, value in setting.items():
            if name not in scheduled and group.get(name) != value:
                changed.setdefault(name, (group.get(name), value))
                group[name] = value
    for name, (before, now) in changed.items():
        _tell(f"optimizer: {name}", before, now)


def follow_schedule(settings: Sequence[Mapping[str, Any]], schedulers: Sequence[Any]) -> None:
    """Brings loaded schedulers to the config's settings, in place, but not back, and names them."""
    for number, (scheduler, setting) in enumerate(zip(schedulers, settings, strict=True)):
        for name in settings_taken_by(type(scheduler)) & {*setting}:
            before, value = getattr(scheduler, name, None), setting[name]
            if before != value:
                setattr(scheduler, name, value)
                _tell(f"param_scheduler[{number}]: {name}", before, value)


def settings_taken_by(kind: type) -> set[str]:
    """Returns the names of a scheduler's settings: what it keeps beside them is where it is."""
    taken = [{*inspect.signature(one).parameters} for one in kind.__mro__[:-1]]
    return set().union(*taken, {"total_iters"}) - {"last_step", "optimizer", "verbose"}


def _tell(name: str, before: Any, now: Any) -> None:
    values = shorten(before), shorten(now)
    log.warning("%s: the run began with %s, it goes on with %s", name, *values)


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


def validation_is_due(runner: Any) -> bool:
    """Returns whether the loop would have validated after the iterations done, and has not."""
    loop = runner.train_loop
    if runner.val_loop is None or loop.iter < loop.val_begin:
        return False
    loop._decide_current_val_interval()
    due = loop.iter % loop.val_interval == 0 or loop.iter == loop.max_iters
    return due and runner.message_hub.get_info(VALIDATED) != loop.iter
