"""A model as a folder that can be handed on: ``model.safetensors``, ``config.py`` and a card.

``fldet package`` writes one. The config is what ``stored_config`` returns, as text: the model, how
images are prepared for it, its classes. It is read as that of a checkpoint is, and never run;
``thresholds.json`` beside it has the scores from which detections count.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fldet.checkpoints.literals import MOST_CHARACTERS, read_literals
from fldet.errors import CheckpointError, DataError, UnavailableError, shorten
from fldet.files import GIB, PACKAGED_WEIGHTS, read_bytes, read_text, write_atomically

WEIGHTS, CONFIG, THRESHOLDS = PACKAGED_WEIGHTS, "config.py", "thresholds.json"
ENDING = ".safetensors"
MOST_OF_WEIGHTS = 16 * GIB
MOST_TENSORS = 200_000

_EXPECTED = "a whole file of tensors, as written by fldet package"
_DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}


def thresholds_beside(weights: Path) -> Path | None:
    """Returns the file of thresholds in the folder that a file of weights is of, if it has one."""
    file = weights.with_name(THRESHOLDS)
    return file if weights.name == WEIGHTS and file.exists() else None


def read_weights_file(path: Path) -> dict[str, Any]:
    """Returns a ``.safetensors`` file as the content of a checkpoint, tensors on the CPU.

    The config beside it, if it is the file of a folder of ``fldet package``, is ``meta.cfg``.

    Raises:
        CheckpointError: unreadable, no such file, or tensors of an odd type.
        UnavailableError: safetensors is not installed.
    """
    library = _safetensors()
    try:
        data = read_bytes(path, "weights", expected=_EXPECTED, most=MOST_OF_WEIGHTS)
        text = _config_beside(path)
    except DataError as error:
        raise CheckpointError(error.message, expected=error.expected, hint=error.hint) from None
    try:
        state = library.load(data)
    except Exception as error:  # of the library, or of torch for a type that it lacks
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"cannot read {path}: it is cut off, damaged or of another kind: {shorten(reason)}",
            expected=_EXPECTED,
        ) from None
    if len(state) > MOST_TENSORS or any(one.dtype not in _DTYPES for one in state.values()):
        raise CheckpointError(
            f"{path} has {len(state)} tensors, or one of an odd type",
            expected=f"at most {MOST_TENSORS} tensors of numbers that torch computes with",
        )
    meta: dict[str, Any] = {}
    if text is not None:
        meta = {"cfg": text, "dataset_meta": {"classes": _classes(read_literals(text, path))}}
    return {"state_dict": state, "meta": meta}


def write_weights_file(state: Mapping[str, Tensor], path: Path) -> Path:
    """Writes weights by name as ``.safetensors``; returns its path.

    Raises:
        UnavailableError: safetensors is not installed.
    """
    library = _safetensors()
    # of their own: the format knows no two names for the same numbers
    own = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    return write_atomically(path, library.save(own, metadata={"format": "pt"}))


def _config_beside(path: Path) -> str | None:
    config = path.with_name(CONFIG)
    if path.name != WEIGHTS or not config.exists():
        return None
    return read_text(config, "config", most=4 * MOST_CHARACTERS)


def _classes(values: Any) -> Any:
    """Returns the names of classes in the literals of a config, whatever they are."""
    for key in ("test_dataloader", "dataset", "metainfo", "classes"):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _safetensors() -> Any:
    """Returns the module of safetensors that reads and writes torch's tensors."""
    try:
        return import_module("safetensors.torch")
    except ImportError as error:
        raise UnavailableError(
            f"the package safetensors cannot be imported: {error}",
            expected="safetensors, which fldet needs for packaged models only",
            hint="pip install 'fldet[package]'",
        ) from error
