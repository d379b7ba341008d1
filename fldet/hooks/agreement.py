"""What the processes of a run agree on, without touching the GPU."""

import torch
import torch.distributed as dist


class Agreement:
    """Lets all processes act on what one of them has seen; made at the same place in each.

    The messages go through gloo, in memory of the host, so that no GPU is waited for.
    """

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None
        if self.needed and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")

    @property
    def needed(self) -> bool:
        """Whether there are other processes."""
        return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1

    def highest(self, value: int) -> int:
        """Returns the largest ``value`` of all processes; each must call it."""
        if not self.needed:
            return value
        shared = torch.tensor(value)
        dist.all_reduce(shared, dist.ReduceOp.MAX, self._group)
        return int(shared)
