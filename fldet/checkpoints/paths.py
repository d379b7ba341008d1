"""Where checkpoints lie: in a work dir, in the folds of a cross-validation. Imports no torch."""

import re
from pathlib import Path

from fldet.data.folds.files import is_folder_of_folds, read_folds, work_dir_of_fold
from fldet.errors import CheckpointError, UsageError
from fldet.files import PACKAGED_WEIGHTS, is_model_folder

EXPORTED = (".onnx", ".torchscript")


def require_file(path: Path) -> None:
    """Does nothing if there is such a file of weights, or exported model.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file():
        return
    if path.suffix in EXPORTED:
        raise CheckpointError(f"exported model not found: {path}")
    raise CheckpointError(
        f"checkpoint not found: {path}", expected="a .pth file, or a work dir that holds one"
    )


def require_checkpoints(path: Path) -> None:
    """Does nothing if a path leads to files: see ``checkpoints_of``.

    Raises:
        CheckpointError: it does not.
    """
    for file in checkpoints_of(path):
        require_file(file)


def checkpoint_of(config: str, checkpoint: Path | None, command: str) -> Path:
    """Returns the checkpoint that a command was given, else its config, which is a work dir then.

    Raises:
        UsageError: there is neither.
        CheckpointError: it does not lead to files.
    """
    if checkpoint is None and not Path(config).is_dir():
        raise UsageError(
            f"fldet {command} {config}: no checkpoint",
            expected="a .pth file or a work dir behind the config, or the work dir alone",
        )
    found = checkpoint or Path(config)
    require_checkpoints(found)
    return found


def resolve_checkpoint(path: Path) -> Path:
    """Returns the file itself, the best (else the newest) of a work dir, or that of a package."""
    if not path.is_dir():
        return path
    if is_model_folder(path):
        return path / PACKAGED_WEIGHTS
    found = best_checkpoint(path) or newest_checkpoint(path)
    if found is None:
        raise CheckpointError(
            f"no checkpoint in {path}", expected="a file best_*.pth or iter_*.pth"
        )
    return found


def checkpoints_of(path: Path) -> tuple[Path, ...]:
    """Returns the checkpoint of a file or a work dir; of a cross-validation, that of each fold."""
    if not is_folder_of_folds(path):
        return (resolve_checkpoint(path),)
    work_dirs = [work_dir_of_fold(path, number) for number in read_folds(path).numbers]
    for work_dir in work_dirs:
        if newest_checkpoint(work_dir) is None:
            raise CheckpointError(
                f"{path} is a folder of folds, and {work_dir.name} has no checkpoint",
                expected="a folder in which fldet cross-validate has trained all folds",
                hint="fldet cross-validate CONFIG trains them",
            )
    return tuple(map(resolve_checkpoint, work_dirs))


def newest_checkpoint(work_dir: Path) -> Path | None:
    """Returns the ``iter_N.pth`` with the largest N, None if there is none."""
    return next(iter(checkpoints(work_dir)), None)


def checkpoints(work_dir: Path) -> list[Path]:
    """Returns the files ``iter_N.pth``, the largest N first."""
    found = (path for path in work_dir.glob("iter_*.pth") if iteration_of(path) >= 0)
    return sorted(found, key=iteration_of, reverse=True)


def best_checkpoint(work_dir: Path) -> Path | None:
    """Returns the checkpoint with the best validation score, None if there is none."""
    return max(work_dir.glob("best_*.pth"), key=lambda file: file.stat().st_mtime, default=None)


def iteration_of(path: Path) -> int:
    """Returns N of a file ``iter_N.pth``, -1 for other names."""
    found = re.fullmatch(r"iter_(\d+)", path.stem)
    return int(found.group(1)) if found else -1
