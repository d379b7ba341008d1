"""What several processes know of a model beside its weights."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from torch import nn

from fldet.registry import HOOKS

_OF_NORMS = {"running_mean", "running_var", "num_batches_tracked"}


@HOOKS.register_module()
class BuffersHook(Hook):
    """Lets the buffers of the first process hold in all of them.

    Each process counts its own images into the statistics of batch norms and into moving averages,
    and a checkpoint has those of the first process. So a validation, which chooses the best
    checkpoint, is done with these, and so is a training that may read them: before each iteration
    the floating-point buffers that are not statistics of norms are made equal, of which most models
    have none. Then a run that goes on from a checkpoint is the same in all processes.
    """

    priority = "HIGH"

    def before_train(self, runner: Any) -> None:
        """Looks which buffers a training may read."""
        self._read = [
            (module, name)
            for module, name in saved_buffers(runner.model)
            if name not in _OF_NORMS and getattr(module, name).is_floating_point()
        ]

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Makes those equal that a training may read."""
        _make_equal(self._read)

    def before_val_epoch(self, runner: Any) -> None:
        """Makes all equal."""
        _make_equal(saved_buffers(runner.model))


def saved_buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yields module and name of each buffer that is part of a checkpoint."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield module, name


def _make_equal(buffers: Iterable[tuple[nn.Module, str]]) -> None:
    if get_world_size() > 1:
        for module, name in buffers:
            dist.broadcast(getattr(module, name), 0)
