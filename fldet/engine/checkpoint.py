"""Finding, reading and writing checkpoints. Nothing in a checkpoint is executed unless trusted."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from torch import nn

from fldet import _compat
from fldet.errors import CheckpointError
from fldet.results import write_atomically

log = logging.getLogger("fldet")

# What a run goes on from; a file without one of them is not a checkpoint of a run.
PARTS_OF_A_RUN = ("meta", "state_dict", "message_hub", "optimizer", "param_schedulers")

_STRICT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class AtomicBackend(LocalBackend):
    """MMEngine's way to local files; a file appears under its name when it is whole."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes a file.

        Raises:
            CheckpointError: it cannot be written; an earlier file of the name is as it was.
        """
        path = Path(filepath)
        try:
            write_atomically(path, obj)
        except OSError as error:
            free = shutil.disk_usage(path.parent).free / 2**20
            raise CheckpointError(
                f"cannot write {path}: {error.strerror or error}",
                expected=f"{len(obj) / 2**20:.1f} MiB of room, there are {free:.1f}; "
                "the checkpoints written before are whole",
                hint="make room, then go on with --resume",
            ) from error


register_backend("local", AtomicBackend, force=True, prefixes="")


def forbid_code_in_checkpoints() -> None:
    """Makes every ``torch.load`` of this process refuse files that hold code.

    MMEngine falls back to unsafe loading by itself when safe loading fails; this variable of torch
    makes that fallback fail as well.
    """
    os.environ[_STRICT] = "1"
    _compat.allow_checkpoint_globals()


@contextmanager
def trusted_checkpoints(trust: bool = True) -> Iterator[None]:
    """Lifts the ban on code in checkpoints for a while, for MMEngine's loading too."""
    if trust:
        os.environ.pop(_STRICT, None)
    try:
        yield
    finally:
        forbid_code_in_checkpoints()


def read_checkpoint(path: Path, *, trust: bool = False) -> dict[str, Any]:
    """Returns the content of a checkpoint file, tensors on the CPU.

    Args:
        path: the file.
        trust: run the code in it if it cannot be read without.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it would run code.
    """
    forbid_code_in_checkpoints()
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint not found: {path}",
            expected="a .pth file, or a work dir that holds one",
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds, all of them mean "unreadable"
        needed = needed_code(error)
        if not (needed and trust):
            raise _unreadable(path, error, needed) from error
        log.warning("%s needs %s: run, as asked by --trust-checkpoint", path, needed)
        with trusted_checkpoints():
            content = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary")
    return content


def needed_code(error: BaseException) -> str:
    """Returns the function or class that a refused checkpoint wants, '' for other errors."""
    found = re.search(r"\bGLOBAL ([\w.]+)", str(error))
    return found[1] if found else ""


def load_weights(model: nn.Module, content: dict[str, Any], path: Path) -> None:
    """Loads the weights of a checkpoint into ``model``; names and shapes must all agree.

    Args:
        model: the model, not wrapped for several processes.
        content: what ``read_checkpoint`` returned, with or without a level ``state_dict``.
        path: the file, for messages.

    Raises:
        CheckpointError: weights are missing, left over or of another shape.
    """
    state = content.get("state_dict", content)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    problem = _first_mismatch(model.state_dict(), state)
    if problem:
        raise CheckpointError(
            f"{path} does not fit the model of the config: {problem}",
            expected="weights of the same architecture and number of classes",
            hint="test with the config that it was trained with; a copy is in its work dir",
        )
    model.load_state_dict(state)


def checkpoint_classes(content: dict[str, Any]) -> tuple[str, ...] | None:
    """Returns the class names that a checkpoint was trained for, None if it does not say."""
    meta = content.get("meta") or {}
    dataset = meta.get("dataset_meta") or {}
    classes = dataset.get("classes", dataset.get("CLASSES", meta.get("CLASSES")))
    return tuple(classes) if classes else None


def resolve_checkpoint(path: Path) -> Path:
    """Returns the file itself, or the best (else the newest) checkpoint of a work dir.

    Raises:
        CheckpointError: a folder without a checkpoint.
    """
    if not path.is_dir():
        return path
    found = best_checkpoint(path) or newest_checkpoint(path)
    if found is None:
        raise CheckpointError(
            f"no checkpoint in {path}", expected="a file best_*.pth or iter_*.pth"
        )
    return found


def newest_checkpoint(work_dir: Path) -> Path | None:
    """Returns the ``iter_N.pth`` with the largest N, None if there is none."""
    return next(iter(checkpoints(work_dir)), None)


def checkpoints(work_dir: Path) -> list[Path]:
    """Returns the files ``iter_N.pth``, the largest N first."""
    found = (path for path in work_dir.glob("iter_*.pth") if iteration_of(path) >= 0)
    return sorted(found, key=iteration_of, reverse=True)


def usable_checkpoints(
    work_dir: Path, *, trust: bool = False
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields the checkpoints that a run can go on from, newest first; warns of the others."""
    for path in checkpoints(work_dir):
        try:
            content = read_checkpoint(path, trust=trust)
        except CheckpointError as error:
            log.warning("passed over: %s", error.message)
            continue
        missing = [part for part in PARTS_OF_A_RUN if part not in content]
        if missing or content["meta"].get("iter") != iteration_of(path):
            reason = f"has no {missing[0]}" if missing else "is of another iteration than its name"
            log.warning("passed over: %s is not a checkpoint of a run, it %s", path, reason)
            continue
        yield path, content


def weights_problem(model: nn.Module, content: dict[str, Any]) -> str:
    """Returns the first way in which a checkpoint does not fit a model, '' if it does."""
    return _first_mismatch(model.state_dict(), content["state_dict"])


def remove_leftovers(work_dir: Path) -> None:
    """Removes the temporary files of a process that ended while it wrote."""
    for path in work_dir.glob(".*.pth.*"):
        log.info("removed %s, left over from a save that was cut off", path)
        path.unlink(missing_ok=True)


def best_checkpoint(work_dir: Path) -> Path | None:
    """Returns the checkpoint with the best validation score, None if there is none."""
    return max(work_dir.glob("best_*.pth"), key=lambda file: file.stat().st_mtime, default=None)


def iteration_of(path: Path) -> int:
    """Returns N of a file ``iter_N.pth``, -1 for other names."""
    found = re.fullmatch(r"iter_(\d+)", path.stem)
    return int(found.group(1)) if found else -1


def _unreadable(path: Path, error: Exception, needed: str) -> CheckpointError:
    if needed:
        return CheckpointError(
            f"cannot read checkpoint {path}: it needs {needed}, which may run code",
            expected="tensors and plain values, as written by fldet or MMDetection",
            hint="if you know who made it, add --trust-checkpoint",
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return CheckpointError(
        f"cannot read checkpoint {path}: {reason}",
        expected="a whole file of tensors, as written by fldet, MMDetection or torch.save",
    )


def _first_mismatch(expected: dict[str, Any], found: dict[str, Any]) -> str:
    problems = [
        f"{name} is {tuple(found[name].shape)}, the model has {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    problems += [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not in the model" for name in found if name not in expected]
    if not problems:
        return ""
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0] + others
