"""What a checkpoint holds beside its weights, in types that torch alone reads back.

``torch.load(path, weights_only=True)`` needs no other package then, and a file that was changed by
somebody cannot choose what is done with files and code of the machine where it goes on.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_LOG, _COUNTS, _LONGEST = "log_history", "count_history", "max_length"


def make_plain(checkpoint: dict[str, Any]) -> None:
    """Puts tensors, numbers, texts, lists and dicts in the place of other types, in place.

    The log history becomes ``log_history`` and ``count_history``, two tensors of (steps,), and
    ``max_length``.
    """
    for key, value in checkpoint.items():
        checkpoint[key] = _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, HistoryBuffer):
        log, counts = value.data
        return {
            _LOG: torch.from_numpy(log.copy()),
            _COUNTS: torch.from_numpy(counts.copy()),
            _LONGEST: value.max_length,
        }
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _plain(item)
    elif isinstance(value, list):
        value[:] = map(_plain, value)
    elif type(value) is tuple:
        return tuple(map(_plain, value))
    return value


def take_back(checkpoint: dict[str, Any], work_dir: Path) -> None:
    """Undoes ``make_plain`` for MMEngine, and takes out what MMEngine would do on a file's word.

    That is a config in ``meta``, which it would run, and names of best checkpoints elsewhere than
    in the work dir, which it would remove when there is a better one.
    """
    meta, hub = checkpoint.get("meta"), checkpoint.get("message_hub")
    if isinstance(meta, dict):
        meta.pop("config", None)
    if not isinstance(hub, dict):
        return
    scalars, info = hub.get("log_scalars") or {}, hub.get("runtime_info") or {}
    for name, value in scalars.items():
        if isinstance(value, dict):
            log, counts = value[_LOG].numpy(), value[_COUNTS].numpy()
            scalars[name] = HistoryBuffer(log, counts, value[_LONGEST])
    for name in [key for key in info if str(key).startswith("best_ckpt")]:
        file = Path(str(info[name])).name
        if file.startswith("best_") and file.endswith(".pth"):
            info[name] = str(work_dir / file)
        else:
            del info[name]
