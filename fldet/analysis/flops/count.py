"""What the layers of a config's model cost, counted without computing anything."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fldet.config.prepare import prepare_config
from fldet.engine.step_errors import explained_step_errors
from fldet.errors import ConfigError
from fldet.registry import MODELS


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer; the layers of a head are called once for each level."""

    name: str  # of the layer in the model; empty for what is computed outside of any layer
    call: int  # earlier calls of the same layer
    flops: int  # two for a multiply-add
    outputs: int  # numbers in its output


@dataclass(frozen=True)
class NetworkCosts:
    """What a network costs for one image."""

    shape: tuple[int, int]  # (height, width) of the image as the network gets it, padded, in pixels
    strides: tuple[int, ...]  # of the levels that the head sees, in pixels
    parameters: dict[str, int]  # how many numbers, by the name of the parameter
    # of all layers that do convolutions or matrix products; nothing else is counted
    calls: tuple[LayerCall, ...]


def count_flops(cfg: Config, shape: tuple[int, int]) -> NetworkCosts:
    """Returns the costs of the model of a config for one image.

    The model has shapes but no values (torch's meta device), so that no weights are loaded and
    nothing is computed. ``shape`` is (height, width) of the resized image in pixels; it is padded
    as the config says.

    Raises:
        ConfigError: a wrong key or value, or a model that is not a one-stage detector.
        UsageError: ``shape`` is too small for the network.
        DataError: malformed annotations; the file need not exist.
    """
    cfg = prepare_config(cfg, phases=())
    model = meta_model(cfg)
    anchors = getattr(getattr(model, "bbox_head", None), "prior_generator", None)
    if anchors is None:
        raise ConfigError(
            f"model {cfg.model.get('type')!r} has no bbox_head with anchors or points",
            expected="a one-stage detector, as in configs/retinanet/r50_fpn_1x.py",
        )
    divisor = getattr(model.data_preprocessor, "pad_size_divisor", 1)
    height, width = (math.ceil(side / divisor) * divisor for side in shape)
    return NetworkCosts(
        shape=(height, width),
        strides=tuple(int(stride[0]) for stride in anchors.strides),
        parameters={name: one.numel() for name, one in model.named_parameters()},
        calls=_calls(model, torch.empty(1, 3, height, width, device="meta")),
    )


def flop_counter() -> FlopCounterMode:
    """Returns torch's counter of operations, two for a multiply-add, right for groups too.

    Torch counts the gradient of the weights of a grouped convolution as if it had one group.
    """
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward_flops}
    )


def _backward_flops(
    grad_out: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    asked: Sequence[bool],
    **_: Any,
) -> int:
    """Returns what the gradients of a convolution cost; the tensors are given by their shapes.

    Those of the input and of the weights pair the same numbers as the convolution itself: each of
    its products once. The gradient of the bias has none.
    """
    places = math.prod((x if transposed else grad_out)[2:])
    return sum(asked[:2]) * 2 * x[0] * math.prod(weight) * places


def meta_model(cfg: Config) -> Any:
    """Returns the model of a config in evaluation mode: shapes of weights without values.

    Some modules make their weights past ``torch.device`` (``torch.Tensor(n)``); those follow.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    with torch.device("meta"):
        return MODELS.build(cfg.model).to("meta").eval()


def _calls(model: nn.Module, image: Tensor) -> tuple[LayerCall, ...]:
    calls: list[LayerCall] = []
    counter = flop_counter()
    seen: Counter[str] = Counter()
    before: dict[str, int] = {}

    def start(name: str, *_: Any) -> None:
        before[name] = counter.get_total_flops()

    def end(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        flops = counter.get_total_flops() - before[name]
        if flops:
            calls.append(LayerCall(name, seen[name], flops, output.numel()))
            seen[name] += 1

    for name, module in model.named_modules():
        if not any(module.children()):
            module.register_forward_pre_hook(partial(start, name))
            module.register_forward_hook(partial(end, name))
    with counter, torch.no_grad(), explained_step_errors():
        model(image, mode="tensor")
    rest = counter.get_total_flops() - sum(call.flops for call in calls)
    return (*calls, LayerCall("", 0, rest, 0)) if rest else tuple(calls)
