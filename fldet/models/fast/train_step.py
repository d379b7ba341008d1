"""The lines of a config that make a training step faster, or smaller in memory.

``amp``, ``channels_last``, ``fold_batch_norms``, ``compile`` and ``gradient_checkpointing``; none
changes the names of the weights, so checkpoints fit with and without.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import CodeType
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fldet.errors import ConfigError, UnavailableError
from fldet.models.fast.bfloat16 import Bfloat16OptimWrapper, avoid_narrow_maps
from fldet.models.fast.buffers import changing_modules, copy_buffers, restore_buffers
from fldet.models.fast.depthwise import is_slow_depthwise, with_quick_gradient
from fldet.models.fast.methods import replace_method
from fldet.models.fast.optimize import foldable_pairs

log = logging.getLogger("fldet")

MAX_COMPILATIONS = 64  # one for each padded size; torch stops at 8, and goes on uncompiled


def set_up_model(model: Any, cfg: Config) -> None:
    """Changes a detector in place as the lines say, before it is wrapped or trained.

    The config has gone through ``fldet.config.train_step.set_train_step``.

    Raises:
        ConfigError: ``compile`` or ``gradient_checkpointing`` with a model that is put together in
            another way.
    """
    if cfg.get("channels_last"):
        model.to(memory_format=torch.channels_last)
    if cfg.get("fold_batch_norms"):
        _fold_batch_norms(model.backbone)
    if cfg.get("gradient_checkpointing"):
        _checkpoint_gradients(model)
    if cfg.get("compile"):
        _compile(model, cfg.compile["backend"])


def avoid_faults_of_cpus(model: nn.Module, cfg: Config) -> None:
    """Keeps a model on a CPU from torch's faults in bfloat16 and slow kernels, in place."""
    if next(model.parameters()).device.type != "cpu":
        return
    if cfg.optim_wrapper.type == f"fldet.{Bfloat16OptimWrapper.__name__}":
        avoid_narrow_maps(model)
    if cfg.get("channels_last") and not cfg.get("compile"):
        if torch.get_num_threads() == 1:
            avoid_slow_convolutions(model)
        for module in filter(is_slow_depthwise, model.modules()):
            replace_method(module, "_conv_forward", with_quick_gradient)


def avoid_slow_convolutions(model: nn.Module) -> None:
    """Sends convolutions with a kernel of one pixel to oneDNN where there is one thread, in place.

    torch then takes a kernel of its own for them (``_slow_conv2d``), unless they are dilated, which
    one pixel does not feel. In channels_last oneDNN's takes half of the time; without AVX-512 its
    backward pass takes more, so that only layers which are not trained are sent there.
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1):
            continue
        if wide or not module.weight.requires_grad:
            module.dilation = (2, 2)


def require_compiler(device: torch.device, backend: str = "inductor") -> None:
    """Compiles one line, so that a missing compiler is noticed before a training and not in it."""
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


# --- the model ---


def _fold_batch_norms(module: nn.Module) -> None:
    """Multiplies batch norms into the weights before them, in each step anew, at any depth.

    Only while a norm has fixed statistics. Its map is then neither written nor read, and the
    gradients of its weight and bias come through the small product of the weights.
    """
    for conv, norm in foldable_pairs(module):
        if conv.bias is not None or not norm.affine:
            continue
        replace_method(conv, "forward", _with_norm)
        replace_method(norm, "forward", _unless_folded)
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

    replace_method(model, "loss", with_compiled_network)


def _checkpoint_gradients(model: Any) -> None:
    """Keeps of each residual block, of the neck and of each level of the head the inputs only."""
    if not _goes_by_levels(getattr(model, "bbox_head", None)):
        raise _unsuited("gradient_checkpointing", model, "has no function for a level of the head")
    stages = [m for m in model.backbone.children() if isinstance(m, nn.Sequential)]
    blocks = [block for stage in stages for block in stage.children()]
    for part in [*blocks, *([model.neck] if getattr(model, "neck", None) else [])]:
        replace_method(part, "forward", _computed_again)
    replace_method(model.bbox_head, "forward_single", _computed_again)


def _goes_by_levels(head: Any) -> bool:
    """Returns whether ``forward`` of a head calls ``forward_single``, itself or through super()."""
    for kind in type(head).__mro__ if hasattr(type(head), "forward_single") else ():
        if "forward" in vars(kind):
            names = _names_in(inspect.unwrap(vars(kind)["forward"]).__code__)
            if "forward_single" in names or "super" not in names:
                return "forward_single" in names
    return False


def _names_in(code: CodeType) -> set[str]:
    """Returns the names of attributes and globals in a function, comprehensions inside included."""
    inside = [one for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*map(_names_in, inside))


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

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_kept(self)

        return checkpoint(method, self, *inputs, use_reentrant=False, context_fn=contexts)

    return call


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Undoes what a second pass over the same maps adds to the statistics of batch norms."""
    modules = changing_modules(module)
    saved = copy_buffers(modules)
    try:
        yield
    finally:
        restore_buffers(modules, saved)
