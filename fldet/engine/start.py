"""Where a run begins: its work dir, held and read once, and as it was at that iteration."""

import copy
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from torch import Tensor

from fldet.checkpoints.files import (
    checkpoint_classes,
    read_checkpoint,
    usable_checkpoints,
    weights_of,
    weights_problem,
)
from fldet.checkpoints.paths import checkpoints, iteration_of, newest_checkpoint
from fldet.config.prepare import our_datasets
from fldet.engine.hooks import EarlyEndHook
from fldet.engine.hooks.checkpoint import VALIDATED, identity_of
from fldet.engine.lock import locked
from fldet.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    UsageError,
    explained_file_errors,
    shorten,
)
from fldet.files import GIB, is_temporary_name, parse_json, read_bytes, write_atomically
from fldet.numeric import is_number
from fldet.processes import process_rank, restart_count
from fldet.registry import MODELS

log = logging.getLogger("fldet")

# The files that a run writes under a temporary name first, and how locks were made before.
_WRITTEN = r"(?:iter_\d+|best_.+|nonfinite_iter_.+)\.pth|last_checkpoint|run\.lock|.+\.py"
# Settings by which kinds of optimizers differ; others come and go with the versions of torch.
_OF_A_KIND = {"alpha", "betas", "dampening", "eps", "lambd", "momentum", "nesterov", "rho"}
# State of optimizers with a number for each of a weight's.
_AS_THE_WEIGHT = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg"}
_EARLIER_LOCK = r"\.run\.lock\.(?:.+|stale)\.\d+"


@dataclass(frozen=True)
class Start:
    """Where a run begins: at the first iteration, or behind a checkpoint of its work dir."""

    path: Path | None = None  # the checkpoint; None for a new run
    iteration: int = 0
    seed: int | None = None  # of a run that goes on
    validated: bool = False  # whether the validation after this iteration is part of it
    images: int | None = None  # of a step of one process
    info: dict[str, Any] = field(default_factory=dict)  # what the hooks of the run have noted
    finished: str = ""  # why nothing is left to do, '' if something is


@contextmanager
def opened_run(
    cfg: Config, hooks: Sequence[Hook], *, resume: bool, launcher: str, trust: bool
) -> Iterator[Start]:
    """Holds the work dir of a run for this process, and yields where the run begins.

    Of several processes the first one holds it for all. Those ``hooks`` are asked that may end the
    run early. A run that is there is gone on with where ``resume`` is set, or torchrun has started
    it again after a failure.
    """
    work_dir = Path(cfg.work_dir)
    is_first = launcher == "none" or process_rank() == 0
    lock = locked(work_dir) if is_first else nullcontext(False)
    with explained_file_errors(work_dir), lock as goes_on:
        if goes_on:
            log.info("restart %d of at most %d by torchrun", *restart_count())
            resume = True
        # under torchrun the first process refuses for all: it alone knows of a restart
        if is_first or "TORCHELASTIC_RUN_ID" not in os.environ:
            _require_free(work_dir, resume)
        start = find_start(work_dir, cfg, trust=trust) if newest_checkpoint(work_dir) else Start()
        start = replace(start, finished=why_finished(start, cfg, hooks))
        if start.path:
            log.info("resuming from %s", start.path)
            if (cfg.get("randomness") or {}).get("seed") not in (None, start.seed):
                log.warning("the run began with seed %s and keeps it", start.seed)
        elif cfg.get("load_from") and "://" not in str(cfg.load_from):
            path = Path(cfg.load_from)  # read here, where the reason of a refusal can be said
            weights_of(read_checkpoint(path, trust=trust), path)
        if is_first and not start.finished:
            remove_leftovers(work_dir, start, resume=resume)
        yield start


def _require_free(work_dir: Path, resume: bool) -> None:
    newest = newest_checkpoint(work_dir)
    if newest and not resume:
        raise UsageError(
            f"{work_dir} already holds a run (its newest checkpoint is {newest.name})",
            expected="an empty work dir, or --resume to go on with that run",
            hint="add --resume, or choose another folder: --work-dir "
            + shlex.quote(f"{work_dir}-2"),
        )
    if resume and not newest:
        log.info("nothing to resume in %s: starting from the first iteration", work_dir)


def find_start(work_dir: Path, cfg: Config, *, trust: bool = False) -> Start:
    """Returns the newest checkpoint of a work dir that is whole and fits the model of a config."""
    init_default_scope(cfg.get("default_scope", "mmdet"))
    model = MODELS.build(cfg.model)
    for path, content in usable_checkpoints(work_dir, trust=trust):
        if problem := weights_problem(model, content, path):
            log.warning("passed over: %s does not fit the model of the config: %s", path, problem)
            continue
        _require_classes(checkpoint_classes(content, path), cfg, path)
        _check_optimizer(cfg, model, content, path)
        if "ema_state_dict" in content and not cfg.get("ema"):
            raise ConfigError(
                f"{path} is of a run that averages its weights; the config has ema off",
                expected="ema as the run began",
                hint="go on with: --cfg-options ema=True",
            )
        info, meta = dict(content["message_hub"]["runtime_info"]), content["meta"]
        done = iteration_of(path)
        return Start(
            path,
            done,
            seed=meta["seed"],
            validated=info.get(VALIDATED) == done,
            images=identity_of(meta).get("images per process"),
            info=info,
        )
    raise CheckpointError(
        f"none of the {len(checkpoints(work_dir))} checkpoints in {work_dir} can be used",
        expected="a whole checkpoint of this config's model; the reasons are above",
        hint="start anew in another folder with --work-dir",
    )


def _check_optimizer(cfg: Config, model: Any, content: Mapping[str, Any], path: Path) -> None:
    """Refuses an optimizer or a schedule of another kind than a run has saved."""
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    if not isinstance(wrapper, OptimWrapper):  # several optimizers, each by its name
        return
    kind = identity_of(content["meta"]).get("optimizer")
    now = type(wrapper.optimizer).__name__
    problem = f"the run has {kind}, the config {now}" if kind not in (None, now) else ""
    problem = problem or groups_problem(wrapper.param_groups, content["optimizer"])
    problem = problem or state_problem(wrapper.param_groups, content["optimizer"])
    schedule = cfg.get("param_scheduler") or []
    schedule = [schedule] if isinstance(schedule, dict) else schedule
    steps = [
        PARAM_SCHEDULERS.build(
            {key: value for key, value in one.items() if key != "convert_to_iter_based"},
            default_args={"optimizer": wrapper},
        ).state_dict()
        for one in schedule
    ]
    problem = problem or schedule_problem(steps, content["param_schedulers"])
    if problem:
        raise ConfigError(
            f"cannot go on from {path} with this config: {problem}",
            expected="optim_wrapper and param_scheduler of the kinds that the run began with",
            hint="a new run can begin with its weights: another --work-dir, and --cfg-options "
            f"load_from={shlex.quote(str(path))}",
        )


def groups_problem(now: Sequence[Mapping[str, Any]], saved: Any) -> str:
    """Returns why the saved state of an optimizer does not fit its groups of weights, or ''."""
    groups = saved.get("param_groups") if isinstance(saved, dict) else None
    if not isinstance(groups, list) or not all(isinstance(one, dict) for one in groups):
        return "its optimizer has no groups of weights"
    if len(groups) != len(now):
        return f"its optimizer has {len(groups)} groups of weights, the config's {len(now)}"
    for there, here in zip(groups, now, strict=True):
        if not isinstance(there.get("params"), list) or len(there["params"]) != len(here["params"]):
            return "its optimizer has groups of other weights"
        kinds = [", ".join(sorted(_OF_A_KIND & {*group})) for group in (there, here)]
        if kinds[0] != kinds[1]:
            return f"its optimizer has {kinds[0] or 'no momentum'}, the config's {kinds[1]}"
        for name in sorted({*there} & {*here} - {"params"}):
            if not _same_kind(there[name], here[name]):
                return f"its optimizer's {name} is {shorten(there[name])}"
    return ""


def state_problem(now: Sequence[Mapping[str, Any]], saved: Any) -> str:
    """Returns why what an optimizer has saved for each weight does not fit the weights, or ''."""
    state = saved.get("state")
    if not isinstance(state, dict):
        return "its optimizer has no state"
    for there, here in zip(saved["param_groups"], now, strict=True):
        for number, weight in zip(there["params"], here["params"], strict=True):
            values = state.get(number, {}) if isinstance(number, int) else None
            if not isinstance(values, dict):
                return "its optimizer has a state that cannot be read"
            for name, value in values.items():
                shape = value.shape if isinstance(value, Tensor) else ()
                is_as_large = name not in _AS_THE_WEIGHT or shape == weight.shape
                if is_as_large and (isinstance(value, Tensor) or value is None):
                    continue
                if not (is_as_large and _is_finite(value)):
                    return f"its optimizer's {shorten(name)} of a weight is {shorten(value)}"
    return ""


def _same_kind(there: Any, here: Any) -> bool:
    """Returns whether a saved setting may stand where another stands; None may anywhere."""
    if there is None or here is None or (isinstance(here, bool) and isinstance(there, bool)):
        return True
    if isinstance(here, (int, float)) and not isinstance(here, bool):
        return _is_finite(there)
    if isinstance(here, (list, tuple)):
        kind = here[0] if here else 0
        return isinstance(there, (list, tuple)) and all(_same_kind(one, kind) for one in there)
    if isinstance(here, dict):
        return isinstance(there, dict) and all(map(_is_finite, there.values()))
    return isinstance(there, type(here))


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor) and value.numel() == 1:  # torch's capturable optimizers
        value = value.item()
    return is_number(value)


def schedule_problem(now: Sequence[Mapping[str, Any]], saved: Any) -> str:
    """Returns why the saved state of a schedule is of another kind than the config's, or ''."""
    if not isinstance(saved, list) or not all(isinstance(one, dict) for one in saved):
        return "its schedule cannot be read"
    if len(saved) != len(now):
        return f"its schedule has {len(saved)} parts, the config's {len(now)}"
    for number, (there, here) in enumerate(zip(saved, now, strict=True)):
        if {*there} != {*here} or there.get("param_name") != here.get("param_name"):
            return f"param_scheduler[{number}] of the run is of another kind"
        for name in sorted(there):
            if not _same_kind(there[name], here[name]):
                return f"{name} of the run's param_scheduler[{number}] is {shorten(there[name])}"
    return ""


def _require_classes(trained: tuple[str, ...] | None, cfg: Config, path: Path) -> None:
    """Refuses other classes than those that a run began with, or another order."""
    for _, dataset in our_datasets(cfg.get("train_dataloader")):
        names = tuple(dataset.metainfo["classes"])
        if trained and names != trained:
            raise ConfigError(
                f"the run began with the classes {shorten(trained)}, the config has "
                f"{shorten(names)}: {path}",
                expected="the same classes in the same order",
                hint="start anew in another folder with --work-dir",
            )


def why_finished(start: Start, cfg: Config, hooks: Sequence[Hook] = ()) -> str:
    """Returns why a run has nothing left to do, '' if it has: iterations, or a validation."""
    if not start.path:
        return ""
    validates = bool(cfg.get("val_cfg") and cfg.get("val_dataloader"))
    if validates and not start.validated:
        return ""
    if start.iteration >= cfg.train_cfg.max_iters:
        return f"{start.path.name} is its last iteration"
    reasons = [hook.reached(start.info) for hook in hooks if isinstance(hook, EarlyEndHook)]
    return next(filter(None, reasons), "")


def remove_leftovers(work_dir: Path, start: Start, *, resume: bool) -> None:
    """Removes what a run that was cut off has left behind the iteration where it goes on.

    Where it does not ``resume``, the logs in the folder are of another run, and stay.
    """
    for path in _leftovers(work_dir):
        log.info("removed %s, left over from a run that was killed", path)
        path.unlink(missing_ok=True)
    if start.path:
        # MMEngine reads the path here; after a move of the folder it would be the old one.
        write_atomically(work_dir / "last_checkpoint", str(start.path))
    # A run that was killed before its first checkpoint has left lines too.
    for path in sorted(work_dir.glob("*/vis_data/*.json")) if resume else ():
        if path.name in ("scalars.json", f"{path.parent.parent.name}.json"):  # of MMEngine
            trim_scalars(path, start.iteration, validated=start.validated)


def _leftovers(work_dir: Path) -> Iterator[Path]:
    """Yields the temporary files of our own that a killed process has left in a work dir."""
    for places, written in ((".*", _WRITTEN), ("*/vis_data/.*", r".+\.json")):
        for path in work_dir.glob(places):
            if is_temporary_name(path.name, written) or re.fullmatch(_EARLIER_LOCK, path.name):
                yield path


def trim_scalars(path: Path, iteration: int, *, validated: bool) -> None:
    """Removes the lines of a log of scalars that the resumed run will write again.

    The line of the validation at ``iteration`` stays if it was ``validated``.
    """
    try:
        data = read_bytes(path, most=GIB)
    except DataError as error:
        log.warning("passed over: %s", error.message)
        return
    lines = data.splitlines(keepends=True)  # of bytes: at line ends alone
    kept = [line for line in lines if _is_kept(line, iteration, validated)]
    if kept != lines:
        write_atomically(path, b"".join(kept))


def _is_kept(line: bytes, iteration: int, validated: bool) -> bool:
    """Returns whether a line is of an iteration done; what is no line of a log is not."""
    if not line.endswith(b"\n"):  # cut off; the next start would write behind it
        return False
    try:
        content = parse_json(line.decode(), "")
    except (UnicodeDecodeError, DataError):  # a power loss leaves anything
        return False
    step = content.get("step", 0) if isinstance(content, dict) else None
    if not isinstance(step, int):
        return False
    is_validation = "lr" not in content
    return step < iteration or (step == iteration and (validated or not is_validation))
