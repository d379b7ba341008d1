"""Mixed precision with bfloat16, on any device that has it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

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


def avoid_single_columns(model: nn.Module) -> None:
    """Lets 3x3 convolutions of stride 2 see maps of one column with a second one of zeros.

    On a CPU the bfloat16 gradient of such a convolution on a map of width 1 reads memory that
    nobody wrote (torch 2.13). P7 of a narrow image is such a map. The zeros stand where the
    convolution pads with zeros anyway, so nothing else changes. Hooks do it; weights and their
    names stay.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and (
            (module.kernel_size, module.stride, module.padding) == ((3, 3), (2, 2), (1, 1))
        ):
            module.register_forward_pre_hook(_widen_single_column)


def _widen_single_column(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    return (F.pad(inputs[0], (0, 1)),) if inputs[0].shape[-1] == 1 else None
