"""Mixed precision with bfloat16, on any device that has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from fldet.models.fast.methods import replace_method
from fldet.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast, on the device of the model.

    bfloat16 has the range of float32, so losses need no scaling. MMEngine's own wrapper for mixed
    precision refuses to run on a CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enters autocast for one forward pass of ``model``."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield


def avoid_narrow_maps(model: nn.Module) -> None:
    """Computes convolutions in float32 on maps narrower than their kernel or stride, in place.

    On a CPU the bfloat16 gradient of their weight reads memory that nobody wrote (torch 2.13, any
    number of groups). P7 of a narrow image comes from such a map. Weights and their names stay.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.stride[1] > 1:
            replace_method(module, "_conv_forward", _narrow_maps_in_float32)


def _narrow_maps_in_float32(method: Any) -> Any:
    def _conv_forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        reach = self.dilation[1] * (self.kernel_size[1] - 1) + 1
        if input.shape[-1] >= max(reach, self.stride[1]) or not torch.is_autocast_enabled("cpu"):
            return method(self, input, weight, bias)
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.float()
            result = method(self, input.float(), weight.float(), bias)
        return result.to(torch.get_autocast_dtype("cpu"))

    return _conv_forward
