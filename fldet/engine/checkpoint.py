"""Finding and reading checkpoints. Nothing in a checkpoint is executed."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fldet import _compat
from fldet.errors import CheckpointError


def forbid_code_in_checkpoints() -> None:
    """Makes every ``torch.load`` of this process refuse files that hold code.

    MMEngine falls back to unsafe loading by itself when safe loading fails; this variable of torch
    makes that fallback fail as well.
    """
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    _compat.allow_checkpoint_globals()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint file, tensors on the CPU.

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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"cannot read checkpoint {path}: {reason}",
            expected="a whole file of tensors, as written by fldet, MMDetection or torch.save",
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary")
    return content


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
    return max(work_dir.glob("iter_*.pth"), key=iteration_of, default=None)


def best_checkpoint(work_dir: Path) -> Path | None:
    """Returns the checkpoint with the best validation score, None if there is none."""
    return max(work_dir.glob("best_*.pth"), key=lambda file: file.stat().st_mtime, default=None)


def iteration_of(path: Path) -> int:
    """Returns N of a file ``iter_N.pth``, -1 for other names."""
    found = re.fullmatch(r"iter_(\d+)", path.stem)
    return int(found.group(1)) if found else -1


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
