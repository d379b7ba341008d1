"""Mixed precision with bfloat16, on any device that has it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

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


def wrapper_name(device: torch.device) -> str:
    """Returns the optimizer wrapper to use for ``--amp`` on a device.

    GPUs without bfloat16 get MMEngine's float16 wrapper, which scales the loss.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "AmpOptimWrapper"
    return "fldet.Bfloat16OptimWrapper"
