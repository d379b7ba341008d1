"""The lines of a config that make a training step faster, or smaller in memory.

``amp``, ``channels_last``, ``fold_batch_norms``, ``compile`` and ``gradient_checkpointing``; none
changes the names of the weights, so checkpoints fit with and without. What they mean for the model
is in ``fldet.models.fast.train_step``.
"""

import logging
from typing import Any

import torch
from mmengine.config import Config

from fldet.config.check import TRAINING_KEYS
from fldet.config.prepare import our_datasets
from fldet.devices import has_bfloat16
from fldet.errors import ConfigError

log = logging.getLogger("fldet")


BFLOAT16, FLOAT16 = "fldet.Bfloat16OptimWrapper", "AmpOptimWrapper"  # the latter is MMEngine's
AUTO = "auto"  # of ``amp``: bfloat16 where the device computes in it, else float32
STEP = 160  # pixels; 800, 480 and 320 are multiples, and it is one of 32
_MIXED = {BFLOAT16: "bfloat16", FLOAT16: "float16, loss scaled"}


def set_train_step(cfg: Config, device: torch.device) -> None:
    """Sets what the lines imply for optimizer, preprocessor and loader of a training, in place."""
    for name in TRAINING_KEYS - {"compile"}:
        value = cfg.get(name, False)
        others = (None, AUTO) if name == "amp" else ()
        if not (isinstance(value, bool) or value in others):
            expected = f"True, False or {AUTO!r}" if others else "True or False"
            raise ConfigError(f"{name} is {value!r}", expected=expected)
    compiling = _compile_options(cfg)
    if compiling and cfg.get("gradient_checkpointing"):
        raise ConfigError(
            "compile and gradient_checkpointing exclude each other",
            expected="one of them; the compiler itself chooses what to compute again",
        )
    if cfg.get("fold_batch_norms") and cfg.get("sync_bn"):
        raise ConfigError(
            "fold_batch_norms and sync_bn exclude each other",
            expected="one of them; sync_bn puts other norms in the place of those folded",
        )
    _set_precision(cfg, device)
    if cfg.get("channels_last") or compiling:
        _use_our_preprocessor(cfg, compiling)
    if compiling:
        _hint_at_one_size(cfg, compiling["sizes"])
    cfg.compile = compiling or False
    if device.type == "cuda":
        cfg.train_dataloader.setdefault("pin_memory", True)


def train_step_in_words(cfg: Config) -> str:
    """Returns what a run uses, in words."""
    compiling = _compile_options(cfg)
    kind = _wrapper_kind(cfg)
    words = [
        f"network in {_MIXED[kind]}, losses in float32" if kind in _MIXED else "in float32",
        cfg.get("channels_last") and "channels_last",
        cfg.get("fold_batch_norms") and "fixed batch norms folded",
        compiling and f"compiled, padded to {_in_words(compiling['sizes'])}",
        cfg.get("gradient_checkpointing") and "gradients with checkpoints",
    ]
    return "; ".join(word for word in words if word)


def _compile_options(cfg: Config) -> dict[str, Any]:
    """Returns ``sizes`` and ``backend`` of the line ``compile``, nothing where it is off."""
    given = cfg.get("compile", False)
    if given is False or given is None:
        return {}
    options: dict[str, Any] = {"sizes": STEP, "backend": "inductor"}
    options |= given if isinstance(given, dict) else {}
    if not (given is True or isinstance(given, dict)) or len(options) != 2:
        raise ConfigError(
            f"compile is {given!r}",
            expected="True, False, or dict(sizes=[(800, 1344), (1344, 800)]), each (height, width)",
        )
    return options


def _set_precision(cfg: Config, device: torch.device) -> None:
    """Sets the optimizer's wrapper as ``amp`` says; where it says nothing, the wrapper stays."""
    kind = _wrapper_kind(cfg)
    amp = cfg.get("amp")
    if amp == AUTO:
        amp = has_bfloat16(device)
    if amp is False and kind in _MIXED:
        use_wrapper(cfg, "OptimWrapper")
    elif amp and kind not in (*_MIXED, "OptimWrapper"):
        raise ConfigError(
            f"amp: optim_wrapper.type is {kind!r}", expected="OptimWrapper, whose place amp takes"
        )
    elif amp and (kind == "OptimWrapper" or (kind == FLOAT16 and device.type == "cpu")):
        use_wrapper(cfg, wrapper_name(device))
        if device.type == "cpu" and not has_bfloat16(device):
            log.warning(
                "amp: this processor has no arithmetic for bfloat16; it is emulated, which is "
                "slower than float32"
            )
    elif amp is None and kind == FLOAT16 and device.type == "cpu":
        raise ConfigError(
            f"optim_wrapper.type is {kind!r}, which is for GPUs alone; this is a CPU",
            expected="OptimWrapper, and amp = True for bfloat16",
            hint="fldet train with --amp for bfloat16, or with --no-amp for float32",
        )


def _wrapper_kind(cfg: Config) -> str:
    """Returns the type of the optimizer's wrapper, by the name that MMEngine's have here."""
    return str(cfg.optim_wrapper.get("type", "OptimWrapper")).removeprefix("mmengine.")


def use_wrapper(cfg: Config, kind: str) -> None:
    """Sets the type of the optimizer's wrapper, and drops what MMEngine's for float16 alone has."""
    cfg.optim_wrapper.type = kind
    for name in ("dtype", "loss_scale", "use_fsdp"):
        cfg.optim_wrapper.pop(name, None)


def _use_our_preprocessor(cfg: Config, compiling: dict[str, Any]) -> None:
    preprocessor: Any = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    if str(preprocessor.get("type")).rpartition(".")[2] == "DetDataPreprocessor":
        preprocessor.type = "fldet.DetDataPreprocessor"
        if compiling:
            preprocessor.batch_sizes = compiling["sizes"]
    elif compiling:
        raise ConfigError(
            f"compile: data_preprocessor.type is {preprocessor.get('type')!r}",
            expected="DetDataPreprocessor: batches are padded to few sizes there",
        )


def _hint_at_one_size(cfg: Config, sizes: Any) -> None:
    """Says where images that all have one size are padded: default boxes of a head go by maps."""
    pipelines = [dataset.get("pipeline") for _, dataset in our_datasets(cfg.train_dataloader)]
    size = next(filter(None, map(_fixed_size, pipelines)), None)
    if size is None or not isinstance(sizes, int):
        return
    padded = tuple(-(-side // sizes) * sizes for side in size)
    if padded != size:
        log.warning(
            "compile: all images have %dx%d and are padded to %dx%d, which changes the maps, and "
            "the places of a head's default boxes with them; compile=dict(sizes=[(%d, %d)]) does "
            "not pad",
            *(*size, *padded, *size),
        )


def _fixed_size(pipeline: Any) -> tuple[int, int] | None:
    """Returns the (height, width) that a pipeline warps all images to, None if they differ."""
    for step in pipeline or ():
        scale = step.get("scale")
        pair = isinstance(scale, (list, tuple)) and all(isinstance(side, int) for side in scale)
        name = str(step.get("type")).rpartition(".")[2]
        if name == "Resize" and pair and not step.get("keep_ratio", False):
            return int(scale[1]), int(scale[0])
    return None


def _in_words(sizes: Any) -> str:
    if isinstance(sizes, int):
        return f"sides of multiples of {sizes}"
    return ", ".join(f"{height}x{width}" for height, width in sizes)


def wrapper_name(device: torch.device) -> str:
    """Returns the optimizer wrapper of ``amp`` on a device.

    GPUs without arithmetic for bfloat16 get MMEngine's float16 wrapper, which scales the loss.
    """
    if device.type == "cuda" and not has_bfloat16(device):
        return FLOAT16
    return BFLOAT16
