"""Replaying a detector's network on a GPU without the host's work between its kernels."""

from typing import Any

import torch
from torch import Tensor, nn

from fldet.errors import UnavailableError
from fldet.models.fast.optimize import network_parts

_WARMUP = 3  # runs before the recording, in which libraries choose and allocate


def graphed(model: nn.Module, batch: dict[str, Any]) -> nn.Module:
    """Records backbone, neck and head of a detector as CUDA graphs and has them replayed.

    Preprocessing and post-processing go on as before. The maps are overwritten by the next image.
    The batch is as ``test_step`` takes it; only batches of the same padded size can follow.

    Returns:
        The model itself, a single-stage detector in evaluation mode on a GPU, which is changed and
        can only predict afterwards.
    """
    parts = network_parts(model, "recorded as a CUDA graph")
    require_graphs(next(model.parameters()).device)
    detector: Any = model
    with torch.no_grad():  # tensors of the inference mode could not be written to outside of it
        maps = detector.data_preprocessor(batch, False)["inputs"]
        for part in parts:
            maps = _record(part, maps)
    return model


def require_graphs(device: torch.device) -> None:
    """Checks that a device has CUDA graphs."""
    if device.type != "cuda":
        raise UnavailableError(
            f"--cuda-graph: {device} has no CUDA graphs",
            expected="a CUDA device",
            hint="leave --cuda-graph out on a CPU; --compile works there too",
        )


def _record(part: nn.Module, inputs: Any) -> Any:
    """Records a call of a module, hooks included, puts its replay in place; returns the outputs."""
    static = _cloned(inputs)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARMUP):
            part(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = part(static)

    def replay(given: Any) -> Any:
        for mine, new in zip(_tensors(static), _tensors(given), strict=True):
            if mine.shape != new.shape:
                raise RuntimeError(
                    f"a CUDA graph recorded for {tuple(mine.shape)} got {tuple(new.shape)}"
                )
            mine.copy_(new)
        graph.replay()
        return outputs

    # The recording has what hooks and torch.compile add to a call.
    part._forward_hooks.clear()
    part._forward_pre_hooks.clear()
    part._compiled_call_impl = None
    part.forward = replay
    return outputs


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else type(value)(map(_cloned, value))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value for tensor in _tensors(item)]
