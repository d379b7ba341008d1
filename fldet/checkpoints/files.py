"""Finding, reading and writing checkpoints. Nothing in a checkpoint is executed unless trusted."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.utils import apply_to
from torch import Tensor, nn

from fldet.checkpoints import content as checkpoint_file
from fldet.checkpoints.literals import class_tuple
from fldet.checkpoints.model_folder import ENDING, WEIGHTS, read_weights_file
from fldet.checkpoints.paths import checkpoints, iteration_of, require_file
from fldet.data.stream import is_seed
from fldet.errors import CheckpointError, shorten
from fldet.files import is_model_folder, write_atomically
from fldet.numeric import are_numbers

log = logging.getLogger("fldet")

# What a run goes on from; a file without one of them is not a checkpoint of a run.
PARTS_OF_A_RUN = ("meta", "state_dict", "message_hub", "optimizer", "param_schedulers")

_STRICT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class AtomicBackend(LocalBackend):
    """MMEngine's way to local files; a file appears under its name when it is whole."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes a file; where it cannot be written, an earlier one of the name is as it was."""
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

    MMEngine falls back to unsafe loading by itself; this variable of torch makes that fail as well.
    """
    os.environ[_STRICT] = "1"


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
    """Returns the content of a checkpoint file on the CPU; ``trust`` runs code that it needs.

    The folder of a packaged model will do, and its weights by themselves.
    """
    forbid_code_in_checkpoints()
    if is_model_folder(path):
        path = path / WEIGHTS
    if path.suffix == ENDING:
        return read_weights_file(path)
    require_file(path)
    try:
        content = checkpoint_file.read(path)
    except checkpoint_file.RefusedError as refused:
        if not (refused.needs and trust):
            raise CheckpointError(
                f"cannot read checkpoint {path}: {refused}",
                expected="tensors and plain values, as written by fldet or MMDetection",
                hint="if you know who made it, add --trust-checkpoint" if refused.needs else "",
            ) from refused
        log.warning("%s needs %s: run, as asked by --trust-checkpoint", path, refused.needs)
        with trusted_checkpoints():
            content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # torch raises half a dozen kinds, all of them mean "unreadable"
        raise CheckpointError(
            f"cannot read checkpoint {path}: {_reason(path, error)}",
            expected="a whole file of tensors, as written by fldet, MMDetection or torch.save",
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary")
    return content


@CheckpointLoader.register_scheme(prefixes="", force=True)
def _load_for_mmengine(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Returns a local checkpoint for MMEngine, which reads weights and runs by this function."""
    content = read_checkpoint(Path(filename), trust=_STRICT not in os.environ)
    if map_location in (None, "cpu"):
        return content
    return apply_to(content, torch.is_tensor, lambda tensor: tensor.to(map_location))


def load_weights(model: nn.Module, content: dict[str, Any], path: Path) -> None:
    """Loads weights into a model that is not wrapped; names and shapes must all agree."""
    state = {
        name.removeprefix("module."): value for name, value in weights_of(content, path).items()
    }
    if problem := first_mismatch(model.state_dict(), state):
        raise CheckpointError(
            f"{path} does not fit the model of the config: {problem}",
            expected="weights of the same architecture and number of classes",
            hint="test with the config that it was trained with; a copy is in its work dir",
        )
    model.load_state_dict(state)


def weights_of(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Returns the weights of a checkpoint by name, with or without a level ``state_dict``."""
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path} holds no weights", expected="a dictionary of tensors")
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise CheckpointError(
                f"{path}: the weight {name!r} is a {type(value).__name__}",
                expected="names with tensors, below state_dict or at the top",
            )
    return state


def meta_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint says about its run, {} if it does not."""
    meta = content.get("meta")
    return meta if isinstance(meta, dict) else {}


def checkpoint_classes(content: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    """Returns the class names that a checkpoint was trained for, None if it does not say."""
    meta = meta_of(content)
    dataset = meta.get("dataset_meta")
    dataset = dataset if isinstance(dataset, dict) else {}
    return class_tuple(dataset.get("classes", dataset.get("CLASSES", meta.get("CLASSES"))), path)


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
        if reason := _no_run(content, iteration_of(path)):
            log.warning("passed over: %s is not a checkpoint of a run, it %s", path, reason)
            continue
        yield path, content


def _no_run(content: dict[str, Any], iteration: int) -> str:
    """Returns why a run cannot go on from a checkpoint, '' if it may."""
    for part in PARTS_OF_A_RUN:
        if not isinstance(content.get(part), (dict, list)):
            return f"has no {part}"
    meta, hub = meta_of(content), content["message_hub"]
    if meta.get("iter") != iteration:
        return "is of another iteration than its name"
    if not is_seed(meta.get("seed")):
        return "has no seed"
    if not isinstance(hub, dict) or not isinstance(hub.get("runtime_info"), dict):
        return "has no log history"
    info = hub["runtime_info"]
    numbers = (info.get("best_score", 0.0), info.get("validated_iter", 0))
    if not are_numbers(numbers):
        return "has a best score or a validation that is no number"
    return "" if content["optimizer"] else "has no optimizer"


def weights_problem(model: nn.Module, content: dict[str, Any], path: Path) -> str:
    """Returns the first way in which a checkpoint does not fit a model, '' if it does."""
    try:
        return first_mismatch(model.state_dict(), weights_of(content, path))
    except CheckpointError as error:
        return error.message


def _reason(path: Path, error: Exception) -> str:
    """Returns what is wrong with a file; torch's own words are about its inside."""
    with open(path, "rb") as file:
        head = file.read(2)
    if not head:
        return "the file is empty"
    if head != b"PK":
        return "it is not a file that torch.save has written, or it is damaged"
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"it is cut off, damaged or of another kind: {shorten(text)}"


def first_mismatch(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Returns the first way in which weights differ from those of a model, '' if they do not."""
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
