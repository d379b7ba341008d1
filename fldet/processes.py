"""Which process of a run this is, whoever started it: torchrun, Slurm or Open MPI.

torch reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, which torchrun sets; for the
other launchers ``adopt_launcher`` sets them. And the processes that this one starts: they live as
long as it does.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from pathlib import Path

from fldet.errors import UsageError
from fldet.numeric import is_whole

LAUNCHERS = ("auto", "none", "pytorch", "slurm", "mpi")

# Number of the process, count of all, number on its machine; the first that is set counts.
_VARIABLES = {
    "pytorch": (("RANK",), ("WORLD_SIZE",), ("LOCAL_RANK",)),
    "slurm": (("SLURM_PROCID",), ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_LOCALID",)),
    "mpi": (
        ("OMPI_COMM_WORLD_RANK",),
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
    ),
}
_HINTS = {
    "pytorch": "start with --gpus N, or with: torchrun --nproc-per-node N -m fldet ...",
    "slurm": "start with: srun --ntasks N fldet ... --launcher slurm",
    "mpi": "start with: mpirun -n N fldet ... --launcher mpi",
}
_DEFAULT_PORT = 29500  # torch's
_FIRST_SLURM_PORT, _SLURM_PORTS = 15000, 15000  # below those that systems give out by themselves


def adopt_launcher(launcher: str) -> str:
    """Makes the variables of a launcher those that torch and fldet read.

    MASTER_ADDR and MASTER_PORT stay as they are where they are set. With Slurm the address is the
    first host of the step, and the port follows from the numbers of job and step, so that jobs
    that share a machine do not meet.

    ``auto`` is ``pytorch`` where torchrun started this process, else ``none``. Slurm sets its
    variables for one process alone too, so it has to be named.

    Returns:
        ``none``, or ``pytorch`` for all others: from here on they are alike.
    """
    if launcher not in LAUNCHERS:
        raise UsageError(f"unknown launcher {launcher!r}", expected=", ".join(LAUNCHERS))
    if launcher == "auto":
        launcher = "pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none"
    if launcher == "none":
        return launcher
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    for name, sources in zip(names, _VARIABLES[launcher], strict=True):
        value = next((os.environ[source] for source in sources if source in os.environ), None)
        if value is None:
            raise UsageError(
                f"--launcher {launcher} needs the variable {sources[0]}, which is not set",
                hint=_HINTS[launcher],
            )
        os.environ[name] = value
    if launcher == "slurm":
        os.environ.setdefault("MASTER_ADDR", _slurm_address())
        os.environ.setdefault("MASTER_PORT", str(_slurm_port()))
    elif launcher == "mpi":
        if os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == os.environ["WORLD_SIZE"]:
            os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        if "MASTER_ADDR" not in os.environ:
            raise UsageError(
                "--launcher mpi on several machines needs MASTER_ADDR, the host of process 0",
                hint="mpirun -x MASTER_ADDR=HOST ...",
            )
        os.environ.setdefault("MASTER_PORT", str(_DEFAULT_PORT))
    return "pytorch"


def process_rank() -> int:
    """Returns the number of this process, 0 if it is alone."""
    return int(os.environ.get("RANK", 0))


def process_count() -> int:
    """Returns how many processes the launcher has started, 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def first_host(nodes: str) -> str:
    """Returns the first name of a list as Slurm writes it: ``gpu[03-05,9],login`` gives ``gpu03``.

    ``scontrol show hostnames`` does the same, but containers rarely have it.
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0] if first else nodes)


def agent_identity() -> dict[str, str | None]:
    """Returns what names the torchrun that started this process, the same after its restarts.

    ``run`` is the id that a user may choose for a run on several machines, ``agent`` the process on
    this machine; there is neither without torchrun.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    agent = os.getppid()
    return {"run": os.environ["TORCHELASTIC_RUN_ID"], "agent": f"{agent} {process_born(agent)}"}


def restart_count() -> tuple[int, int]:
    """Returns how often torchrun has started this process again, and how often it would."""
    names = "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"
    done, most = (int(os.environ.get(name, 0)) for name in names)
    return done, most


def process_born(pid: int) -> str | None:
    """Returns when a process started, in the kernel's ticks; None where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _slurm_address() -> str:
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "")
    count = os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("SLURM_NNODES")
    return "127.0.0.1" if count == "1" or not nodes else first_host(nodes)


def _slurm_port() -> int:
    job, step = (
        int(text) if is_whole(text := os.environ.get(name, "")) else 0
        for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")
    )
    return _FIRST_SLURM_PORT + (job + 7919 * step) % _SLURM_PORTS


def core_count() -> int:
    """Returns the number of processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def end_with_parent() -> None:
    """Ends this process, which another one has started, within a second of that one's end.

    A process that waits for work would else wait for ever where the one that gives it was killed.
    """
    _watch(_parent_has_ended)


def stop_with_parent() -> None:
    """Sends this process SIGTERM within a second of the end of the one that has started it."""
    _watch(_parent_has_ended, lambda: os.kill(os.getpid(), signal.SIGTERM))


def leave_signals_to_parent() -> None:
    """Lets the process that has started this one decide when it ends.

    Ctrl-C and a closed terminal reach all processes of a terminal, SIGTERM often all of a group or
    a job: by ``timeout``, systemd, Slurm or torchrun. The parent has work to save first, and may
    need this process for it. SIGTERM by the parent itself ends it, and so does the parent's end.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS, Windows: who sent it cannot be known
        end_with_parent()
        return
    # not ignored: a signal that is ignored cannot be waited for
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    _watch(_parent_has_ended_or_asks)


_SECONDS_BETWEEN_LOOKS = 1.0


def _watch(
    has_to_end: Callable[[int], bool],
    end: Callable[[], object] = lambda: os._exit(128 + signal.SIGTERM),
) -> None:
    parent = os.getppid()

    def watch() -> None:
        while not has_to_end(parent):
            pass
        end()

    threading.Thread(target=watch, daemon=True).start()


def _parent_has_ended(parent: int) -> bool:
    time.sleep(_SECONDS_BETWEEN_LOOKS)
    return os.getppid() != parent


def _parent_has_ended_or_asks(parent: int) -> bool:
    received = signal.sigtimedwait([signal.SIGTERM], _SECONDS_BETWEEN_LOOKS)
    starter = parent_process()  # a fork server stands between, where there is one
    asked = received and received.si_pid in (parent, starter and starter.pid)
    return bool(asked) or os.getppid() != parent
