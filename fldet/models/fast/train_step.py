"""The lines of a config that make a training step faster, or smaller in memory.

``amp``, ``channels_last``, ``fold_batch_norms``, ``compile`` and ``gradient_checkpointing``; none
changes the names of the weights, so checkpoints fit with and without.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fldet.config.check import TRAINING_KEYS
from fldet.engine.nonfinite import changing_modules, copy_buffers, restore_buffers
from fldet.errors import ConfigError, UnavailableError
from fldet.models.fast.bfloat16 import BFLOAT16, FLOAT16, avoid_single_columns, wrapper_name
from fldet.models.fast.optimize import foldable_pairs, has_bfloat16

log = logging.getLogger("fldet")

STEP = 160  # pixels; 800, 480 and 320 are multiples, and it is one of 32
_MIXED = {BFLOAT16: "bfloat16", FLOAT16: "float16, loss scaled"}
MAX_COMPILATIONS = 64  # one for each padded size; torch stops at 8, and goes on uncompiled


def configure(cfg: Config, device: torch.device) -> None:
    """Sets what the lines imply for optimizer, preprocessor and loader, in place.

    Args:
        cfg: of a training.
        device: where it runs.

    Raises:
        ConfigError: a value of another kind, or lines that do not go together.
        UnavailableError: ``compile`` where nothing can be compiled.
    """
    for name in TRAINING_KEYS - {"compile"}:
        unset = name == "amp" and cfg.get(name) is None
        if not (unset or isinstance(cfg.get(name, False), bool)):
            raise ConfigError(f"{name} is {cfg[name]!r}", expected="True or False")
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
        require_compiler(device, compiling["backend"])
    if device.type == "cuda":
        cfg.train_dataloader.setdefault("pin_memory", True)


def apply(model: Any, cfg: Config) -> None:
    """Changes a detector in place as the lines say, before it is wrapped or trained.

    Args:
        model: a single-stage detector of MMDetection.
        cfg: after ``configure``.

    Raises:
        ConfigError: ``compile`` or ``gradient_checkpointing`` with a model that is put together in
            another way.
    """
    compiling = _compile_options(cfg)
    if cfg.get("channels_last"):
        model.to(memory_format=torch.channels_last)
    if cfg.get("fold_batch_norms"):
        _fold_batch_norms(model.backbone)
    if cfg.get("gradient_checkpointing"):
        _checkpoint_gradients(model)
    if compiling:
        _compile(model, compiling["backend"])


def guard(model: nn.Module, cfg: Config) -> None:
    """Keeps a model on a CPU from torch's faults in bfloat16, in place."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and cfg.optim_wrapper.type == BFLOAT16:
        avoid_single_columns(model)


def describe(cfg: Config) -> str:
    """Returns what a run uses, in words; '' for nothing."""
    compiling = _compile_options(cfg)
    kind = str(cfg.optim_wrapper.get("type"))
    words = [
        kind in _MIXED and f"network in {_MIXED.get(kind)}, losses in float32",
        cfg.get("channels_last") and "channels_last",
        cfg.get("fold_batch_norms") and "fixed batch norms folded",
        compiling and f"compiled, padded to {_in_words(compiling['sizes'])}",
        cfg.get("gradient_checkpointing") and "gradients with checkpoints",
    ]
    return "; ".join(word for word in words if word)


def require_compiler(device: torch.device, backend: str = "inductor") -> None:
    """Compiles one line, so that a missing compiler is noticed before a training and not in it.

    Raises:
        UnavailableError: that fails.
    """
    constant = torch.rand(()).item()  # no kernel of an earlier trial fits
    trial = torch.compile(lambda x: x * constant, dynamic=False, backend=backend)
    try:
        trial(torch.ones(16, device=device))
    except Exception as error:  # whatever torch, Triton or the compiler raises
        torch._dynamo.reset()
        needs = (
            "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler (g++, clang)"
        )
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise UnavailableError(
            f"compile: torch.compile fails on {device}: {type(error).__name__}: {reason}",
            expected=f"{needs}, and the header files of Python",
            hint="train without: --cfg-options compile=False",
        ) from error


# --- the config ---


def _compile_options(cfg: Config) -> dict[str, Any]:
    """Returns ``sizes`` and ``backend`` of the line ``compile``, nothing where it is off.

    Raises:
        ConfigError: a value of another kind.
    """
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
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    amp = cfg.get("amp")
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


def _in_words(sizes: Any) -> str:
    if isinstance(sizes, int):
        return f"sides of multiples of {sizes}"
    return ", ".join(f"{height}x{width}" for height, width in sizes)


# --- the model ---


def _replace(module: nn.Module, name: str, around: Callable[[Any], Any]) -> None:
    """Puts ``around(method)`` in the place of a method of one module; copies of it keep that."""
    kind = type(module)
    own = {name: around(getattr(kind, name)), "__module__": kind.__module__}
    module.__class__ = type(kind.__name__, (kind,), own)


def _fold_batch_norms(module: nn.Module) -> None:
    """Multiplies batch norms into the weights before them, in each step anew, at any depth.

    Only while a norm has fixed statistics. Its map is then neither written nor read, and the
    gradients of its weight and bias come through the small product of the weights.
    """
    for conv, norm in foldable_pairs(module):
        if conv.bias is not None or not norm.affine:
            continue
        _replace(conv, "forward", _with_norm)
        _replace(norm, "forward", _unless_folded)
        vars(conv)["norm_after"] = (norm,)  # in a tuple: not a part of the convolution
    for child in module.children():
        _fold_batch_norms(child)


def _with_norm(method: Any) -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        (norm,) = self.norm_after
        if norm.training:
            return method(self, x)
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * factor
        return self._conv_forward(x, self.weight * factor[:, None, None, None], bias)

    return forward


def _unless_folded(method: Any) -> Any:
    def forward(self: Any, x: Tensor) -> Tensor:
        return method(self, x) if self.training else x

    return forward


def _compile(model: Any, backend: str) -> None:
    """Compiles the network, from the batch to the maps of the head, for training steps only.

    As one graph: at a border between two, dynamo would look at ``grad`` of maps, and torch warn.
    """
    if type(model).loss is not SingleStageDetector.loss or (
        type(model.bbox_head).loss is not BaseDenseHead.loss
    ):
        raise _unsuited("compile", model, "has a way of its own from the maps to the loss")
    torch._dynamo.config.recompile_limit = max(
        MAX_COMPILATIONS, torch._dynamo.config.recompile_limit
    )

    def network(detector: Any, inputs: Tensor) -> Any:
        return detector.bbox_head(detector.extract_feat(inputs))

    # dynamic: with the FX cache on, torch 2.13 was seen to reuse a kernel that was made with
    # another constant.
    compiled = torch.compile(network, dynamic=False, backend=backend)

    def with_compiled_network(method: Any) -> Any:
        def loss(self: Any, inputs: Tensor, samples: Any) -> Any:
            if not (self.training and torch.is_grad_enabled()):
                return method(self, inputs, samples)
            boxes, ignored_boxes, metas = unpack_gt_instances(samples)
            return self.bbox_head.loss_by_feat(*compiled(self, inputs), boxes, metas, ignored_boxes)

        return loss

    _replace(model, "loss", with_compiled_network)


def _checkpoint_gradients(model: Any) -> None:
    """Keeps of each residual block, of the neck and of each level of the head the inputs only."""
    if not hasattr(getattr(model, "bbox_head", None), "forward_single"):
        raise _unsuited("gradient_checkpointing", model, "has no function for a level of the head")
    stages = [m for m in model.backbone.children() if isinstance(m, nn.Sequential)]
    blocks = [block for stage in stages for block in stage.children()]
    for part in [*blocks, *([model.neck] if getattr(model, "neck", None) else [])]:
        _replace(part, "forward", _computed_again)
    _replace(model.bbox_head, "forward_single", _computed_again)


def _unsuited(line: str, model: Any, why: str) -> ConfigError:
    head = getattr(model, "bbox_head", None)
    with_head = f"with {type(head).__name__}" if head is not None else "without bbox_head"
    return ConfigError(
        f"{line}: a {type(model).__name__} {with_head} {why}",
        expected="a single-stage detector, as RetinaNet with fldet.RetinaHead",
    )


def _computed_again(method: Any) -> Any:
    def call(self: nn.Module, *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return method(self, *inputs)
        contexts = partial(_contexts, self)
        return checkpoint(method, self, *inputs, use_reentrant=False, context_fn=contexts)

    return call


def _contexts(
    module: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_kept(module)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Undoes what a second pass over the same maps adds to the statistics of batch norms."""
    modules = changing_modules(module)
    saved = copy_buffers(modules)
    try:
        yield
    finally:
        restore_buffers(modules, saved)
