"""Copies of a detector that only predict: faster, and not to be trained or saved."""

import copy
import itertools
from typing import Any, NoReturn, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fldet.devices import has_bfloat16
from fldet.errors import UnavailableError, UsageError
from fldet.models.backbones.efficientnet_lite import HalvingConv2d
from fldet.models.dense_heads.retina_head import RetinaHead
from fldet.models.fast.fused import fuse_rectifiers

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def optimized(model: nn.Module, *, precision: str = "fp32", compile: bool = False) -> nn.Module:
    """Returns a copy of a detector that predicts faster and can do nothing else.

    Batch norms with fixed statistics are folded into the convolutions before them, and on an x86
    processor ReLUs and residual sums are made by these convolutions; maps are in ``channels_last``;
    group norms stay. In float32 the scores are within 1e-5 of the original's. In
    bfloat16 backbone, neck and head have weights and maps of 8 bits of mantissa; pixels before
    them, and scores and boxes after them, are float32.

    The model is a single-stage detector of MMDetection, or one with RPN and a RoI head, on its
    device. RoIs are pooled from float32 maps: bfloat16 would place them by 8 pixels. ``compile``
    runs the network through torch.compile, which takes tens of seconds for each size of image and
    needs a C++ compiler on a CPU; what comes after the RoIs, whose number varies, stays as it is.

    Returns:
        A copy in evaluation mode. Its ``train()``, ``state_dict()`` and ``train_step()`` raise
        RuntimeError, and no weight has a gradient.
    """
    require_precision(precision, next(model.parameters()).device)
    result = copy.deepcopy(model).requires_grad_(False)
    result.eval()
    roi_parts = _roi_parts(result)
    parts = network_parts(result, "optimized", head="rpn_head" if roi_parts else "bbox_head")
    for part in [*parts, *roi_parts]:
        fold_batch_norms(part)
        part.to(PRECISIONS[precision]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if not compile or part in roi_parts:  # Inductor does that itself
            fuse_rectifiers(part)
    _convert_at_the_borders(result, PRECISIONS[precision])
    if roi_parts:
        _convert_around_rois(result, PRECISIONS[precision])
    for part in parts if compile else ():
        # With dynamic sizes and the FX cache on, torch 2.13 was seen to reuse a kernel that was
        # made with another constant.
        part.compile(dynamic=False, options={"freezing": True})
    kind = type(result)
    result.__class__ = type(f"Optimized{kind.__name__}", (_PredictsOnly, kind), {})
    return result


def is_optimized(model: nn.Module) -> bool:
    """Returns whether a model is what ``optimized`` returned."""
    return isinstance(model, _PredictsOnly)


def as_in_mmdetection(model: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode that predicts by MMDetection's own code."""
    result = copy.deepcopy(model)
    result.eval()
    head: Any = getattr(result, "bbox_head", None)
    if isinstance(head, RetinaHead):
        head.test_cfg = copy.deepcopy(head.test_cfg)
        head.test_cfg["post_process"] = "stock"
    return result


def network_precision(model: nn.Module) -> str:
    """Returns the name of the data type of a model's weights, ``float32``."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def fold_batch_norms(module: nn.Module) -> int:
    """Folds batch norms into the convolutions before them, in place; returns how many.

    A batch norm is folded where its parent holds it right after an ordinary convolution, as
    ResNet, its kin and ``ConvModule`` do in the order they compute. Others stay. The module is in
    evaluation mode.
    """
    pairs = foldable_pairs(module)
    names = {child: name for name, child in module.named_children()}
    for conv, norm in pairs:
        # A new convolution: the old one may be shared, with another norm at each place.
        setattr(module, names[conv], fuse_conv_bn_eval(conv, norm).requires_grad_(False))
        setattr(module, names[norm], nn.Identity())
    return len(pairs) + sum(fold_batch_norms(child) for child in module.children())


def foldable_pairs(module: nn.Module) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Returns the convolutions among the children, each with the batch norm that follows it."""
    if getattr(module, "order", ("conv", "norm", "act"))[:2] != ("conv", "norm"):
        return []  # a ConvModule that normalizes at another place
    return [
        (conv, norm)
        for conv, norm in itertools.pairwise(module.children())
        # Another subclass of Conv2d may treat its weight.
        if isinstance(conv, nn.Conv2d)
        and type(conv) in (nn.Conv2d, HalvingConv2d)
        and _is_fixed_batch_norm(norm)
    ]


def require_precision(precision: str, device: torch.device) -> None:
    """Checks that there is such a precision, and that a device does not only emulate it."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", expected=", ".join(PRECISIONS))
    if precision == "bf16" and not has_bfloat16(device):
        raise UnavailableError(
            f"--precision bf16: {device} has no arithmetic for bfloat16",
            expected="an x86 processor with AVX512-BF16 or AMX, an ARM one with BF16, or an NVIDIA "
            "GPU of compute capability 8.0 or more",
            hint="use --precision fp32",
        )


class _PredictsOnly(nn.Module):
    """Comes before the class of an optimized copy and forbids what would go wrong with it."""

    def train(self, mode: bool = True) -> Any:
        if mode:
            self._refuse("train")
        return super().train(mode)

    def train_step(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        self._refuse("train_step")

    def state_dict(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        self._refuse("state_dict")

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"{what}() of an optimized copy: its batch norms are folded, so it cannot be trained, "
            "and its weights are not those of a checkpoint; use the model it was made of"
        )


def network_parts(model: Any, wish: str, head: str = "bbox_head") -> list[nn.Module]:
    """Returns backbone, neck and head of a detector; others cannot be what is wished for."""
    if not hasattr(model, "backbone") or not hasattr(model, head):
        raise UsageError(
            f"a {type(model).__name__} cannot be {wish}",
            expected="a single-stage detector, with backbone and bbox_head",
        )
    parts = model.backbone, getattr(model, "neck", None), getattr(model, head)
    return [part for part in parts if part is not None]


def _roi_parts(model: Any) -> list[nn.Module]:
    """Returns what a detector with RPN computes of pooled RoIs; [] for others, and for masks."""
    roi_head = getattr(model, "roi_head", None)
    if roi_head is None or not hasattr(model, "rpn_head") or roi_head.with_mask:
        return []
    heads = roi_head.bbox_head
    shared = [roi_head.shared_head] if roi_head.with_shared_head else []
    return [*shared, *(heads if isinstance(heads, nn.ModuleList) else [heads])]


def _is_fixed_batch_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _convert_at_the_borders(model: Any, dtype: torch.dtype) -> None:
    """Has pixels converted before the backbone and, unless the head does it, its maps after."""

    def enter(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0].to(dtype, memory_format=torch.channels_last),)

    model.backbone.register_forward_pre_hook(enter)
    head = model.rpn_head if _roi_parts(model) else model.bbox_head
    lean = isinstance(head, RetinaHead) and head.test_cfg.get("post_process", "lean") == "lean"
    if dtype != torch.float32 and not lean:
        head.register_forward_hook(
            lambda _module, _inputs, outputs: tuple([m.float() for m in part] for part in outputs)
        )


def _convert_around_rois(model: Any, dtype: torch.dtype) -> None:
    """Has RoIs pooled in float32, what follows computed in ``dtype``, scores and boxes in float32.

    A shared head hands its maps on to the heads after it.
    """

    def pool(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        maps, *rest = inputs
        return (tuple(one.float() for one in maps), *rest)

    def enter(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(one.to(dtype) if isinstance(one, Tensor) else one for one in inputs)

    def leave(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
        return tuple(one.float() if isinstance(one, Tensor) else one for one in outputs)

    if dtype == torch.float32:
        return
    extractors = model.roi_head.bbox_roi_extractor
    several = isinstance(extractors, nn.ModuleList)
    for extractor in extractors if several else [extractors]:
        extractor.register_forward_pre_hook(pool)
    for part in _roi_parts(model):
        part.register_forward_pre_hook(enter)
        if hasattr(part, "predict_by_feat"):  # a head, not what is shared before it
            part.register_forward_hook(leave)
