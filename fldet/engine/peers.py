"""What the processes of a run agree on, without touching the GPU."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

GROUP_TIMEOUT = timedelta(seconds=1800)


def group_settings(cfg: Any) -> dict[str, Any]:
    """Returns ``backend`` and ``timeout`` of a config's ``env_cfg.dist_cfg``, where they are set.

    ``timeout``, in seconds, is how long a process waits for the others; here it is a timedelta.
    """
    settings = (cfg.get("env_cfg") or {}).get("dist_cfg") or {}
    found = {name: settings[name] for name in ("backend", "timeout") if name in settings}
    if "timeout" in found:
        found["timeout"] = timedelta(seconds=found["timeout"])
    return found


class Agreement:
    """Lets all processes act on what one of them has seen; made at the same place in each.

    The messages go through gloo, in memory of the host, so that no GPU is waited for.

    Args:
        cfg: of the run, for ``group_settings``.
    """

    def __init__(self, cfg: Any) -> None:
        self._group: dist.ProcessGroup | None = None
        if self.needed and dist.get_backend() != "gloo":
            timeout = group_settings(cfg).get("timeout", GROUP_TIMEOUT)
            self._group = dist.new_group(backend="gloo", timeout=timeout)

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

    def is_same(self, value: int) -> bool:
        """Returns whether ``value`` is the same in all processes; each must call it."""
        return self.highest(value) == -self.highest(-value)
