"""Where a stopped run goes on, and a work dir as it was at that iteration."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from fldet.engine.checkpoint import (
    checkpoint_classes,
    checkpoints,
    iteration_of,
    remove_leftovers,
    usable_checkpoints,
    weights_problem,
)
from fldet.engine.prepare import our_datasets
from fldet.errors import CheckpointError, ConfigError, shorten
from fldet.hooks import EarlyEndHook
from fldet.hooks.checkpoint import VALIDATED
from fldet.registry import MODELS
from fldet.results import write_atomically

log = logging.getLogger("fldet")


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run goes on from.

    Attributes:
        path: the file.
        iteration: iterations done.
        seed: of the run.
        validated: whether the validation after this iteration is part of it.
        averaged: whether its weights are averages, and those of the run are kept beside them.
        images: of a step of one process.
        info: what the hooks of the run have noted.
    """

    path: Path
    iteration: int
    seed: int
    validated: bool
    averaged: bool = False
    images: int | None = None
    info: dict[str, Any] = field(default_factory=dict)


def find_start(work_dir: Path, cfg: Config, *, trust: bool = False) -> Start:
    """Returns the newest checkpoint of a work dir that is whole and fits the model of a config.

    Args:
        work_dir: with at least one file ``iter_N.pth``.
        cfg: prepared.
        trust: run the code in checkpoints that cannot be read without.

    Raises:
        CheckpointError: none can be used.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    model = MODELS.build(cfg.model)
    for path, content in usable_checkpoints(work_dir, trust=trust):
        problem = weights_problem(model, content, path)
        if not problem:
            _require_classes(checkpoint_classes(content), cfg, path)
            info, meta = dict(content["message_hub"]["runtime_info"]), content["meta"]
            done = iteration_of(path)
            return Start(
                path,
                done,
                seed=meta["seed"],
                validated=info.get(VALIDATED) == done,
                averaged="ema_state_dict" in content,
                images=(meta.get("fldet") or {}).get("images per process"),
                info=info,
            )
        log.warning("passed over: %s does not fit the model of the config: %s", path, problem)
    raise CheckpointError(
        f"none of the {len(checkpoints(work_dir))} checkpoints in {work_dir} can be used",
        expected="a whole checkpoint of this config's model; the reasons are above",
        hint="start anew in another folder with --work-dir",
    )


def _require_classes(trained: tuple[str, ...] | None, cfg: Config, path: Path) -> None:
    """Does nothing if a run goes on with the labels that it began with.

    Raises:
        ConfigError: the classes of the config are others, or in another order.
    """
    for _, dataset in our_datasets(cfg.get("train_dataloader")):
        names = tuple(dataset.metainfo["classes"])
        if trained and names != trained:
            raise ConfigError(
                f"the run began with the classes {shorten(trained)}, the config has "
                f"{shorten(names)}: {path}",
                expected="the same classes in the same order",
                hint="start anew in another folder with --work-dir",
            )


def why_finished(start: Start, cfg: Config, hooks: Sequence[Any] = ()) -> str:
    """Returns why a run has nothing left to do, '' if it has: iterations, or a validation.

    Args:
        start: where it would go on.
        cfg: prepared.
        hooks: of the run; those that may end it early are asked.
    """
    validates = bool(cfg.get("val_cfg") and cfg.get("val_dataloader"))
    if validates and not start.validated:
        return ""
    if start.iteration >= cfg.train_cfg.max_iters:
        return f"{start.path.name} is its last iteration"
    reasons = [hook.reached(start.info) for hook in hooks if isinstance(hook, EarlyEndHook)]
    return next(filter(None, reasons), "")


def prepare_work_dir(work_dir: Path, start: Start | None, *, resume: bool) -> None:
    """Removes what a run that was cut off has left behind the iteration where it goes on.

    Args:
        work_dir: of the run.
        start: None if it starts from the first iteration.
        resume: whether the logs in the folder are of this run.
    """
    remove_leftovers(work_dir)
    if start:
        # MMEngine reads the path here; after a move of the folder it would be the old one.
        write_atomically(work_dir / "last_checkpoint", str(start.path))
    # A run that was killed before its first checkpoint has left lines too.
    done, validated = (start.iteration, start.validated) if start else (0, False)
    for path in sorted(work_dir.glob("*/vis_data/*.json")) if resume else ():
        trim_scalars(path, done, validated=validated)


def trim_scalars(path: Path, iteration: int, *, validated: bool) -> None:
    """Removes the lines of a log of scalars that the resumed run will write again.

    Args:
        path: one JSON object a line, with ``step``.
        iteration: lines of later steps go.
        validated: keeps the line of the validation at ``iteration``.
    """
    text = path.read_text()
    kept = "".join(_kept_lines(text, iteration, validated))
    if kept != text:
        write_atomically(path, kept)


def _kept_lines(text: str, iteration: int, validated: bool) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        try:
            content: dict[str, Any] = json.loads(line)
        except ValueError:  # cut off in the middle
            continue
        step = content.get("step", 0)
        is_validation = "lr" not in content
        if step < iteration or (step == iteration and (validated or not is_validation)):
            yield line
