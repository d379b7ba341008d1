"""The processes that share a run: their group, and what they agree on without touching the GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from fldet.errors import PeerError
from fldet.processes import process_count, process_rank, restart_count

GROUP_TIMEOUT = timedelta(seconds=1800)


@contextmanager
def process_group(
    launcher: str,
    device: torch.device,
    *,
    timeout: timedelta = GROUP_TIMEOUT,
    backend: str = "nccl",
) -> Iterator[None]:
    """Is in the group of the processes that the launcher started, and leaves it at the end.

    MMEngine, which would join a group on a GPU and fail on a CPU, takes the one that is there.
    Another process that has ended, or does not answer for ``timeout``, is a PeerError here. On a
    CPU the ``backend`` is gloo.
    """
    try:
        if launcher != "none":
            if device.type == "cuda":
                # Slurm may show each process its own device alone, which is then number 0.
                local = int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()
                os.environ["LOCAL_RANK"] = str(local)
                torch.cuda.set_device(local)
            name = backend if device.type == "cuda" else "gloo"
            dist.init_process_group(name, timeout=timeout, **_own_store(timeout))
        yield
    except BaseException as error:
        if device.type == "cpu":  # NCCL would wait for what will never come
            _leave_group()
        is_lost = isinstance(error, dist.DistError) or "gloo/transport" in str(error)
        if isinstance(error, RuntimeError) and is_lost:
            reason = str(error).split("] ", 1)[-1].split(". ")[0].splitlines()[0]
            raise PeerError(
                f"another process of the run has ended or does not answer ({reason})"
            ) from error
        raise
    _leave_group()


def _own_store(timeout: timedelta) -> dict[str, Any]:
    """Returns a part of torchrun's store for this attempt alone, where that is needed.

    torchrun keeps its store over restarts, and with it the addresses of processes that have ended
    (pytorch issue 135712): with torch 2.13 four of six restarts failed or hung. Several machines
    may count restarts differently, so nothing is done there.
    """
    attempt, _ = restart_count()
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    if not attempt or not one_machine or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout
    )
    return {
        "store": dist.PrefixStore(f"attempt {attempt}", store),  # type: ignore[attr-defined]
        "rank": process_rank(),
        "world_size": process_count(),
    }


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the model itself, where it may be wrapped for several processes."""
    return getattr(model, "module", model)


def _leave_group() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


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
